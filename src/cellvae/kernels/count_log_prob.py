"""Log-likelihood of counts straight from what a decoder gives, with its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels.lazy_linear import (
    LazyLinear,
    empty_grad,
    lazy_linear_backward,
    matmul_without_bias,
    unpack_lazy_linear,
    weighted_sums,
)
from cellvae.kernels.openmp import cells_per_range

MIN_MEAN, MAX_INVERSE_DISPERSION = 1e-20, 1e15


def count_log_likelihood(
    counts: Float[Tensor, "cells genes"] | CSRBatch,
    logits: Float[Tensor, "cells genes"] | LazyLinear,
    log_size: Float[Tensor, "cells 1"],
    theta: Float[Tensor, " genes"] | Float[Tensor, "cells genes"] | None = None,
    dropout: Float[Tensor, "cells genes"] | LazyLinear | None = None,
) -> Float[Tensor, " cells"]:
    """Log-likelihood of the counts of each cell, in nats: Poisson, negative binomial or inflated.

    The same as `log_prob` of the distributions with the mean `log_size.exp() * logits.softmax(-1)`,
    summed over genes, in one pass that leaves the gradient too. On the CPU, in single precision.

    Parameters
    ----------
    counts
        Counts, all of them or those that are not zero.
    logits
        Logits of the share that each gene has of its cell, or the layer that gives them.
    log_size
        Natural logarithm of the size of each cell.
    theta
        Inverse dispersion; None for the Poisson distribution.
    dropout
        Logits of a structural zero, or the layer that gives them; None where there are none.
    """
    given: tuple[Tensor | None, ...] = (None, *counts[:3])
    if not isinstance(counts, CSRBatch):
        given = (counts, None, None, None)
    value: Tensor = CountLogLikelihood.apply(
        torch.is_grad_enabled(),
        *given,
        *unpack_lazy_linear(logits),
        log_size,
        theta,
        *unpack_lazy_linear(dropout),
    )
    return value


class CountInputs(NamedTuple):
    """Inputs of the function, as autograd sees them.

    `logits` and `dropout` are the features of a layer where its weight is given.
    """

    counts: Tensor | None
    values: Tensor | None
    indices: Tensor | None
    indptr: Tensor | None
    logits: Tensor
    logits_weight: Tensor | None
    logits_bias: Tensor | None
    log_size: Tensor
    theta: Tensor | None
    dropout: Tensor | None
    dropout_weight: Tensor | None
    dropout_bias: Tensor | None


class CountResults(NamedTuple):
    """Log-likelihood of each cell and its derivatives."""

    value: Tensor
    grad_log_size: Tensor
    grad_logits: Tensor
    grad_theta: Tensor
    grad_dropout: Tensor
    grad_gene: Tensor
    """Sums over the cells, by logits, theta and dropout, [3, genes]; each cell has a weight."""


class CountLogLikelihood(torch.autograd.Function):
    """Log-likelihood of each cell; the derivatives are computed along with it and kept."""

    @staticmethod
    def forward(ctx: Any, derived: bool, *given: Any) -> Tensor:
        """Log-likelihood, in nats; `derived` is whether there may be a backward pass."""
        inputs = CountInputs(*given)
        results = compute_log_prob(inputs, None, need_grad=derived and any(ctx.needs_input_grad))
        ctx.save_for_backward(*inputs, *results)
        return results.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to logits, sizes, inverse dispersion and dropout."""
        inputs = CountInputs(*ctx.saved_tensors[: len(CountInputs._fields)])
        results = CountResults(*ctx.saved_tensors[len(CountInputs._fields) :])
        needed: Any = CountInputs(*ctx.needs_input_grad[1:])
        grad_gene = weighted_sums(
            results.grad_gene, grad, lambda w: compute_log_prob(inputs, w, need_grad=True).grad_gene
        )
        weight = grad.unsqueeze(-1)
        grad_logits = lazy_linear_backward(
            results.grad_logits,
            inputs.logits,
            inputs.logits_weight,
            weight,
            grad_gene[0],
            needs_grad=needed[4:7],
        )
        grad_theta = None
        if inputs.theta is not None and needed.theta:
            per_cell = inputs.theta.shape == results.grad_theta.shape
            grad_theta = (
                results.grad_theta * weight if per_cell else grad_gene[1].view_as(inputs.theta)
            )
        grad_dropout: tuple[Tensor | None, ...] = (None, None, None)
        if inputs.dropout is not None:
            grad_dropout = lazy_linear_backward(
                results.grad_dropout,
                inputs.dropout,
                inputs.dropout_weight,
                weight,
                grad_gene[2],
                needs_grad=needed[9:12],
            )
        grad_log_size = results.grad_log_size.unsqueeze(-1) * weight if needed.log_size else None
        return (*(None,) * 5, *grad_logits, grad_log_size, grad_theta, *grad_dropout)


def compute_log_prob(
    inputs: CountInputs, weight: Tensor | None, *, need_grad: bool
) -> CountResults:
    """Log-likelihood and derivatives, by as many threads as torch has, the same for any number.

    Parameters
    ----------
    inputs
        What is given.
    weight
        What each cell counts for in sums over them; one by default.
    wanted
        Whether derivatives are.
    """
    from cellvae.kernels.compiled.count_log_prob_numba import kernel
    from cellvae.kernels.openmp import run_parallel

    theta, n_cells = inputs.theta, len(inputs.log_size)
    logits = matmul_without_bias(inputs.logits, inputs.logits_weight)
    n_genes = logits.shape[1]
    none, zero = logits.new_empty((0, 0)), logits.new_zeros(n_genes)
    dropout = none
    if inputs.dropout is not None:
        dropout = matmul_without_bias(inputs.dropout, inputs.dropout_weight)
    if theta is not None:
        theta = theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION).view(-1, n_genes)
    at_once = cells_per_range(n_cells)
    n_ranges = -(-n_cells // at_once)
    results = CountResults(
        value=logits.new_empty(n_cells),
        grad_log_size=logits.new_empty(n_cells),
        # What was computed here can be written over.
        grad_logits=empty_grad(logits, inputs.logits_weight) if need_grad else none,
        grad_theta=torch.empty_like(theta)
        if need_grad and theta is not None and len(theta) > 1
        else none,
        grad_dropout=empty_grad(dropout, inputs.dropout_weight) if need_grad else none,
        grad_gene=logits.new_empty((n_ranges, 3, n_genes)) if need_grad else none,
    )
    given = [
        *(inputs.counts, inputs.values, inputs.indices, inputs.indptr, logits),
        zero if inputs.logits_bias is None else inputs.logits_bias,
        inputs.log_size.reshape(n_cells),
        *(theta, dropout),
        zero if inputs.dropout_bias is None else inputs.dropout_bias,
        logits.new_ones(n_cells) if weight is None else weight,
    ]
    tensors = [none if tensor is None else tensor.contiguous() for tensor in given]
    sizes = [0, n_cells, n_genes, 0 if theta is None else len(theta), len(dropout), 0]
    sizes += [-1 if inputs.values is None else len(inputs.values), int(need_grad), at_once]
    addresses = [tensor.data_ptr() for tensor in (*tensors, *results)]
    job = np.array([*sizes, *addresses], dtype=np.int64)
    job[5] = job.ctypes.data
    run_parallel(kernel, job, n_cells)
    return results._replace(grad_gene=results.grad_gene.sum(0)) if need_grad else results
