"""Batch normalisation, ReLU and dropout in one pass over memory, with their gradients."""

from __future__ import annotations

from array import array
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.kernels.compiled.job_layouts import (
    COLUMNS_OF_A_CACHE_LINE,
    BatchNormReluDropoutJob,
)
from cellvae.kernels.layers.lazy_linear import LazyLinear, unpack_lazy_linear
from cellvae.kernels.openmp import run_parallel

MIN_SIZE_PER_THREAD = 1 << 14
"""Number of elements below which a further thread does not pay."""


def batch_norm_relu_dropout(
    features: Float[Tensor, "cells columns"] | LazyLinear,
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
        Features of the cells; a lazy output of a layer with few inputs is computed by the kernel.
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
        *unpack_lazy_linear(features), weight, bias, running_mean, running_var, options
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
        inputs: Tensor,
        linear_weight: Tensor | None,
        linear_bias: Tensor | None,
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
        features = inputs = inputs.contiguous()
        (n_cells, n_inputs), n_columns = inputs.shape, weight.shape[0]
        linear: tuple[Tensor, ...] = ()
        if linear_weight is not None and linear_bias is not None:
            linear = (linear_weight.contiguous(), linear_bias.contiguous())
            features = inputs.new_empty(n_cells, n_columns)
        output, statistics = torch.empty_like(features), features.new_empty((2, n_columns))
        n_threads = choose_layer_threads(features)
        constants = array("d", (eps, momentum, 1 / (1 - dropout_rate)))
        job = BatchNormReluDropoutJob(
            next_column=0,
            n_cells=n_cells,
            n_columns=n_columns,
            n_inputs=n_inputs if linear else 0,
            columns_per_range=columns_per_range(n_columns, n_threads),
            seed=seed,
            threshold=round(dropout_rate * 2**32),
            constants=constants.buffer_info()[0],
            inputs=inputs.data_ptr(),
            linear_weight=linear[0].data_ptr() if linear else 0,
            linear_bias=linear[1].data_ptr() if linear else 0,
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
            grad_inputs=0,
            grad_linear_weight=0,
            grad_linear_bias=0,
        )
        run_parallel(batch_norm_relu_dropout_kernel, job, n_threads)
        ctx.save_for_backward(features, output, weight, statistics, *(linear and (inputs, *linear)))
        ctx.job, ctx.constants, ctx.n_threads = job, constants, n_threads
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features, or of the inputs, and of all weights and biases."""
        from cellvae.kernels.compiled.batch_norm_relu_dropout_numba import (
            batch_norm_relu_dropout_grad_kernel,
        )

        features, output, weight, statistics, *linear = ctx.saved_tensors
        needs = ctx.needs_input_grad
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
        grads: tuple[Tensor | None, ...] = (grad_features, None, None)
        if not linear:
            run_parallel(batch_norm_relu_dropout_grad_kernel, job, ctx.n_threads)
        else:
            inputs, linear_weight, _ = linear
            n_lines = -(-features.shape[1] // COLUMNS_OF_A_CACHE_LINE)
            sums = inputs.new_empty(n_lines, *inputs.shape)
            grad_linear = torch.empty_like(linear_weight), torch.empty_like(weight)
            job = job._replace(
                inputs=inputs.data_ptr(),
                linear_weight=linear_weight.data_ptr(),
                grad_inputs=sums.data_ptr() if needs[0] else 0,
                grad_linear_weight=grad_linear[0].data_ptr(),
                grad_linear_bias=grad_linear[1].data_ptr(),
            )
            run_parallel(batch_norm_relu_dropout_grad_kernel, job, ctx.n_threads)
            grads = (sums.sum(dim=0) if needs[0] else None, *grad_linear)
        needed = zip((*grads, grad_weight, grad_bias), needs, strict=False)
        return (*(grad if need else None for grad, need in needed), None, None, None)


def choose_layer_threads(features: Tensor) -> int:
    """Number of threads: as many as torch uses, fewer for few features."""
    return max(1, min(torch.get_num_threads(), features.numel() // MIN_SIZE_PER_THREAD))


def columns_per_range(n_columns: int, n_threads: int) -> int:
    """Number of columns of a thread; whole cache lines, so that no two threads write the same."""
    return COLUMNS_OF_A_CACHE_LINE * -(-n_columns // (COLUMNS_OF_A_CACHE_LINE * n_threads))
