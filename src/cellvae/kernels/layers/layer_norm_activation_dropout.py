"""Layer normalisation, activation and dropout in one pass over memory, with their gradients."""

from __future__ import annotations

from array import array
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.kernels.compiled.job_layouts import LayerNormActivationDropoutJob
from cellvae.kernels.layers.batch_norm_relu_dropout import choose_layer_threads
from cellvae.kernels.openmp import run_parallel

CELLS_OF_A_COUNTER = 4
"""Cells for which the generator of the dropout masks gives random bits at a time."""


def layer_norm_activation_dropout(
    features: Float[Tensor, "cells columns"],
    *,
    eps: float,
    negative_slope: float = 0.0,
    dropout_rate: float = 0.0,
) -> Float[Tensor, "cells columns"]:
    """Output of layer normalisation without parameters, leaky ReLU and dropout, one after another.

    Equal to the three functions of torch up to rounding, but for which features are dropped: these
    come from a generator whose seed is drawn from that of torch (one draw in each call). For
    float32 on the CPU.

    Parameters
    ----------
    features
        Features of the cells; each cell is normalised over its columns.
    eps
        Added to the variance.
    negative_slope
        What features below zero are multiplied by: 0 for a ReLU, 1 for no activation.
    dropout_rate
        Probability that a feature is set to zero, below 1; the others are divided by its
        complement.
    """
    seed = 0 if dropout_rate == 0 else int(torch.empty((), dtype=torch.int64).random_())
    output: Tensor = LayerNormActivationDropout.apply(
        features, (eps, negative_slope, dropout_rate, seed)
    )
    return output


class LayerNormActivationDropout(torch.autograd.Function):
    """Autograd function of :func:`layer_norm_activation_dropout`.

    What was dropped is not stored: the generator gives the same bits again.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, options: tuple[float, float, float, int]) -> Tensor:
        """Output, [cells, columns]."""
        from cellvae.kernels.compiled.layer_norm_activation_dropout_numba import (
            layer_norm_activation_dropout_kernel,
        )

        eps, negative_slope, dropout_rate, seed = options
        features = features.contiguous()
        n_cells, n_columns = features.shape
        output, statistics = torch.empty_like(features), features.new_empty((2, n_cells))
        n_threads = choose_layer_threads(features)
        constants = array("d", (eps, negative_slope, 1 / (1 - dropout_rate)))
        job = LayerNormActivationDropoutJob(
            next_cell=0,
            n_cells=n_cells,
            n_columns=n_columns,
            cells_per_range=CELLS_OF_A_COUNTER * -(-n_cells // (CELLS_OF_A_COUNTER * n_threads)),
            seed=seed,
            threshold=round(dropout_rate * 2**32),
            constants=constants.buffer_info()[0],
            features=features.data_ptr(),
            mean=statistics[0].data_ptr(),
            inverse_std=statistics[1].data_ptr(),
            output=output.data_ptr(),
            grad_output=0,
            grad_features=0,
        )
        run_parallel(layer_norm_activation_dropout_kernel, job, n_threads)
        ctx.save_for_backward(features, statistics)
        ctx.job, ctx.constants, ctx.n_threads = job, constants, n_threads
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """Gradient of the features."""
        from cellvae.kernels.compiled.layer_norm_activation_dropout_numba import (
            layer_norm_activation_dropout_grad_kernel,
        )

        features, statistics = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        grad_features = torch.empty_like(features)
        job = ctx.job._replace(
            features=features.data_ptr(),
            mean=statistics[0].data_ptr(),
            inverse_std=statistics[1].data_ptr(),
            output=0,
            grad_output=grad_output.data_ptr(),
            grad_features=grad_features.data_ptr(),
        )
        run_parallel(layer_norm_activation_dropout_grad_kernel, job, ctx.n_threads)
        return grad_features, None
