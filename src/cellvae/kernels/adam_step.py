"""One step of Adam or AdamW for all weights at once, on the CPU."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellvae.core.platform.device_kind import is_cpu
from cellvae.core.platform.torch_adapter import note_changes
from cellvae.kernels.compiled.job_layouts import (
    ADAM_TENSOR,
    AdamConstants,
    AdamStepJob,
    AdamTensor,
)
from cellvae.kernels.openmp import run_parallel

MIN_SIZE_PER_THREAD = 1 << 14
"""Number of weights below which a further thread does not pay."""


class AdamWeights(NamedTuple):
    """A tensor of weights with the state that the optimizer has of it, all of its shape."""

    parameter: Tensor
    exp_avg: Tensor
    """Moving mean of the gradients."""
    exp_avg_sq: Tensor
    """Moving mean of their squares."""
    step: Tensor
    """Number of steps so far, []."""


class AdamTable:
    """Addresses of tensors of weights and of their state, which are used in many steps.

    Parameters
    ----------
    weights
        Tensors of weights that :func:`has_adam_kernel` accepts.

    Attributes
    ----------
    n_elements
        Number of weights.
    """

    def __init__(self, weights: Sequence[AdamWeights]) -> None:
        self.weights = tuple(weights)
        self.layouts = [
            (
                w.parameter.data_ptr(),
                w.exp_avg.data_ptr(),
                w.exp_avg_sq.data_ptr(),
                w.parameter.stride(),
                w.parameter.shape,
            )
            for w in weights
        ]
        rows = [
            AdamTensor(
                w.parameter.numel(),
                w.parameter.data_ptr(),
                0,
                w.exp_avg.data_ptr(),
                w.exp_avg_sq.data_ptr(),
                w.step.data_ptr(),
            )
            for w in weights
        ]
        self.rows = np.array(rows, dtype=np.int64).reshape(-1, len(ADAM_TENSOR))
        self.n_elements = int(self.rows[:, ADAM_TENSOR.n_elements].sum())

    def read_gradients(
        self, parameters: Iterable[Tensor], state: Mapping[Tensor, Mapping[str, Tensor]]
    ) -> list[Tensor] | None:
        """Gradients of the parameters that have one; None if the table is not of these.

        It is not if a tensor, its state or their memory were replaced since the table was made, or
        a gradient is not supported.

        Parameters
        ----------
        parameters
            Parameters of a group.
        state
            State of the optimizer.
        """
        gradients: list[Tensor] = []
        n_weights, float32, strided = len(self.weights), torch.float32, torch.strided
        # Written out: it runs for every tensor in every step.
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            i = len(gradients)
            if i == n_weights:
                return None
            known, exp_avg, exp_avg_sq, step = self.weights[i]
            entry = state.get(parameter)
            if (
                known is not parameter
                or not entry
                or entry["exp_avg"] is not exp_avg
                or entry["exp_avg_sq"] is not exp_avg_sq
                or entry["step"] is not step
                or gradient.layout is not strided
                or gradient.dtype is not float32
                or self.layouts[i]
                != (
                    parameter.data_ptr(),
                    exp_avg.data_ptr(),
                    exp_avg_sq.data_ptr(),
                    gradient.stride(),
                    gradient.shape,
                )
            ):
                return None
            gradients.append(gradient)
        return gradients if len(gradients) == n_weights else None


def adam_step(
    table: AdamTable,
    gradients: Sequence[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    is_decoupled: bool,
) -> None:
    """Make one step, in place: weights, moments and the number of steps.

    Equal to torch's `Adam` and `AdamW` up to rounding.

    Parameters
    ----------
    table
        Tensors of weights with their state.
    gradients
        Gradient of each tensor, as :meth:`AdamTable.read_gradients` returns them.
    lr
        Learning rate.
    betas
        Weights of the former means in the new ones.
    eps
        Added to the root of the mean square.
    weight_decay
        Fraction of a weight that is added to its gradient, or subtracted from the weight itself.
    is_decoupled
        Whether the weight decay is decoupled from the gradient (AdamW).
    """
    from cellvae.kernels.compiled.adam_step_numba import adam_step_kernel

    table.rows[:, ADAM_TENSOR.gradient] = [gradient.data_ptr() for gradient in gradients]
    constants = array("d", AdamConstants(lr, *betas, eps, weight_decay))
    job = AdamStepJob(
        next_chunk=0,
        n_done=0,
        n_tensors=len(gradients),
        is_decoupled=int(is_decoupled),
        constants=constants.buffer_info()[0],
        tensors=table.rows.ctypes.data,
    )
    n_threads = min(torch.get_num_threads(), table.n_elements // MIN_SIZE_PER_THREAD)
    run_parallel(adam_step_kernel, job, max(n_threads, 1))
    note_changes([weights.parameter for weights in table.weights])


def has_adam_kernel(weights: AdamWeights) -> bool:
    """Whether :func:`adam_step` supports a tensor of weights.

    That is float32 on the CPU, with all values adjacent in memory and in the same order in all
    tensors.
    """
    parameter, exp_avg, exp_avg_sq, step = weights
    layouts = [(t.layout, t.dtype, t.stride()) for t in (parameter, exp_avg, exp_avg_sq)]
    dense = parameter.is_contiguous() or (parameter.ndim == 2 and parameter.t().is_contiguous())
    return (
        is_cpu(parameter.device)
        and dense
        and parameter.dtype is step.dtype is torch.float32
        and all(layout == layouts[0] for layout in layouts)
    )
