"""One step of Adam or AdamW for all weights at once, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellvae.core.platform.device_kind import is_cpu
from cellvae.core.platform.torch_adapter import note_changes
from cellvae.kernels.compiled.job_layouts import AdamConstants, AdamStepJob, AdamTensor
from cellvae.kernels.openmp import run_parallel

MIN_SIZE_PER_THREAD = 1 << 14
"""Number of weights below which a further thread does not pay."""


class AdamWeights(NamedTuple):
    """A tensor of weights with its gradient and the state of the optimizer, all of its shape."""

    parameter: Tensor
    gradient: Tensor
    exp_avg: Tensor
    """Moving mean of the gradients."""
    exp_avg_sq: Tensor
    """Moving mean of their squares."""
    step: Tensor
    """Number of steps so far, []."""


def adam_step(
    weights: Sequence[AdamWeights],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    is_decoupled: bool,
) -> None:
    """Make one step, in place: weights, moments and the number of steps.

    Equal to torch's `Adam` and `AdamW` up to rounding. For tensors that :func:`has_adam_kernel`
    accepts.

    Parameters
    ----------
    weights
        Tensors of weights, each with its state.
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

    tensors = np.array(
        [
            AdamTensor(
                w.parameter.numel(),
                w.parameter.data_ptr(),
                w.gradient.data_ptr(),
                w.exp_avg.data_ptr(),
                w.exp_avg_sq.data_ptr(),
                w.step.data_ptr(),
            )
            for w in weights
        ],
        dtype=np.int64,
    )
    constants = np.array(AdamConstants(lr, *betas, eps, weight_decay))
    job = AdamStepJob(
        next_chunk=0,
        n_done=0,
        n_tensors=len(weights),
        is_decoupled=int(is_decoupled),
        constants=constants.ctypes.data,
        tensors=tensors.ctypes.data,
    )
    n_threads = min(torch.get_num_threads(), int(tensors[:, 0].sum()) // MIN_SIZE_PER_THREAD)
    run_parallel(adam_step_kernel, job, max(n_threads, 1))
    note_changes([w.parameter for w in weights])


def has_adam_kernel(weights: AdamWeights) -> bool:
    """Whether :func:`adam_step` supports a tensor of weights.

    That is float32 on the CPU, with all values adjacent in memory and in the same order in all
    tensors.
    """
    parameter, gradient, exp_avg, exp_avg_sq, step = weights
    float32, stride = torch.float32, parameter.stride()
    # Written out: it runs for every tensor in every step.
    return (
        gradient.layout is torch.strided
        and parameter.dtype is float32
        and gradient.dtype is float32
        and exp_avg.dtype is float32
        and exp_avg_sq.dtype is float32
        and step.dtype is float32
        and gradient.stride() == stride
        and exp_avg.stride() == stride
        and exp_avg_sq.stride() == stride
        and is_cpu(parameter.device)
        and (parameter.is_contiguous() or (len(stride) == 2 and parameter.t().is_contiguous()))
    )
