"""Batch normalisation, ReLU and dropout in one pass over memory, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.kernels.compiled.job_layouts import BatchNormReluDropoutJob
from cellvae.kernels.openmp import run_parallel

COLUMNS_OF_A_CACHE_LINE = 16
MIN_SIZE_PER_THREAD = 1 << 14
"""Number of elements below which a further thread does not pay."""


def batch_norm_relu_dropout(
    features: Float[Tensor, "cells columns"],
    weight: Float[Tensor, " columns"],
    bias: Float[Tensor, " columns"],
    running_mean: Float[Tensor, " columns"],
    running_var: Float[Tensor, " columns"],
    *,
    momentum: float,
    eps: float,
    dropout_rate: float = 0.0,
) -> Float[Tensor, "cells columns"]:
    """Output of batch normalisation in training mode, ReLU and dropout, one after the other.

    Equal to the three functions of torch up to rounding, but for which features are dropped: these
    come from a generator whose seed is drawn from that of torch (one draw in each call). For
    float32 on the CPU and two cells or more.

    Parameters
    ----------
    features
        Features of the cells.
    weight, bias
        Parameters of the batch normalisation.
    running_mean, running_var
        Running statistics, updated in place.
    momentum
        Weight of this batch in the running statistics.
    eps
        Added to the variance.
    dropout_rate
        Probability that a feature is set to zero, below 1; the others are divided by its
        complement.
    """
    seed = 0 if dropout_rate == 0 else int(torch.empty((), dtype=torch.int64).random_())
    options = (momentum, eps, dropout_rate, seed)
    output: Tensor = BatchNormReluDropout.apply(
        features, weight, bias, running_mean, running_var, options
    )
    return output


class BatchNormReluDropout(torch.autograd.Function):
    """Autograd function of :func:`batch_norm_relu_dropout`.

    A feature passes its gradient on where the output is positive: it was neither negative nor
    dropped. No mask is stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        options: tuple[float, float, float, int],
    ) -> Tensor:
        """Output, [cells, columns]."""
        from cellvae.kernels.compiled.batch_norm_relu_dropout_numba import (
            batch_norm_relu_dropout_kernel,
        )

        momentum, eps, dropout_rate, seed = options
        features = features.contiguous()
        n_columns = features.shape[1]
        output, statistics = torch.empty_like(features), features.new_empty((2, n_columns))
        n_threads = choose_layer_threads(features)
        constants = np.array([eps, momentum, 1 / (1 - dropout_rate)])
        job = BatchNormReluDropoutJob(
            next_column=0,
            n_cells=len(features),
            n_columns=n_columns,
            columns_per_range=columns_per_range(n_columns, n_threads),
            seed=seed,
            threshold=round(dropout_rate * 2**32),
            constants=constants.ctypes.data,
            features=features.data_ptr(),
            weight=weight.data_ptr(),
            bias=bias.data_ptr(),
            running_mean=running_mean.data_ptr(),
            running_var=running_var.data_ptr(),
            mean=statistics[0].data_ptr(),
            inverse_std=statistics[1].data_ptr(),
            output=output.data_ptr(),
            grad_output=0,
            grad_features=0,
            grad_weight=0,
            grad_bias=0,
        )
        run_parallel(batch_norm_relu_dropout_kernel, job, n_threads)
        ctx.save_for_backward(features, output, weight, statistics)
        ctx.job, ctx.constants, ctx.n_threads = job, constants, n_threads
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features, the weight and the bias."""
        from cellvae.kernels.compiled.batch_norm_relu_dropout_numba import (
            batch_norm_relu_dropout_grad_kernel,
        )

        features, output, weight, statistics = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        grad_features = torch.empty_like(features)
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
        job = ctx.job._replace(
            features=features.data_ptr(),
            output=output.data_ptr(),
            weight=weight.data_ptr(),
            mean=statistics[0].data_ptr(),
            inverse_std=statistics[1].data_ptr(),
            grad_output=grad_output.data_ptr(),
            grad_features=grad_features.data_ptr(),
            grad_weight=grad_weight.data_ptr(),
            grad_bias=grad_bias.data_ptr(),
        )
        run_parallel(batch_norm_relu_dropout_grad_kernel, job, ctx.n_threads)
        needs = ctx.needs_input_grad
        return (
            grad_features if needs[0] else None,
            grad_weight if needs[1] else None,
            grad_bias if needs[2] else None,
            None,
            None,
            None,
        )


def choose_layer_threads(features: Tensor) -> int:
    """Number of threads: as many as torch uses, fewer for few features."""
    return max(1, min(torch.get_num_threads(), features.numel() // MIN_SIZE_PER_THREAD))


def columns_per_range(n_columns: int, n_threads: int) -> int:
    """Number of columns of a thread; whole cache lines, so that no two threads write the same."""
    return COLUMNS_OF_A_CACHE_LINE * -(-n_columns // (COLUMNS_OF_A_CACHE_LINE * n_threads))
