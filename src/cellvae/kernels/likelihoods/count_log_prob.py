"""Log-probability of the counts of cells from the output of a decoder, with its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.device_kind import is_cuda
from cellvae.kernels.compiled.job_layouts import CountLogProbJob
from cellvae.kernels.layers.lazy_linear import (
    MAX_BATCHED_THREADS,
    LazyLinear,
    empty_grad,
    find_stack,
    lazy_linear_backward,
    matmul_without_bias,
    unpack_lazy_linear,
    weighted_sums,
)
from cellvae.kernels.likelihoods.kernel_arrays import EMPTY, ones, unpack_counts, zeros
from cellvae.kernels.openmp import cells_per_range, choose_n_threads, run_parallel
from cellvae.kernels.triton.first_use import checked_count_log_prob

MIN_MEAN, MAX_INVERSE_DISPERSION = 1e-20, 1e15


def count_log_prob(
    counts: Float[Tensor, "cells genes"] | CSRBatch,
    logits: Float[Tensor, "cells genes"] | LazyLinear,
    log_library: Float[Tensor, "cells 1"],
    theta: Float[Tensor, " genes"] | Float[Tensor, "cells genes"] | None = None,
    dropout: Float[Tensor, "cells genes"] | LazyLinear | None = None,
) -> Float[Tensor, " cells"]:
    """Log-probability of the counts of each cell, in nats, summed over genes.

    Equal to `log_prob` of the Poisson, negative binomial or zero-inflated negative binomial
    distribution with the mean `log_library.exp() * logits.softmax(-1)`, up to rounding; gradients
    are computed in the same pass. For float32 on the CPU, and for dense counts on a CUDA device.

    Parameters
    ----------
    counts
        Counts, dense or sparse.
    logits
        Logits of the fraction of the counts of a cell that each gene has.
    log_library
        Natural logarithm of the library size of each cell.
    theta
        Inverse dispersion; None for the Poisson distribution.
    dropout
        Logits of a structural zero; None without zero inflation.
    """
    if isinstance(counts, Tensor) and is_cuda(counts.device):
        return checked_count_log_prob(counts, logits, log_library, theta, dropout)
    log_prob: Tensor = CountLogProb.apply(
        torch.is_grad_enabled(),
        *unpack_counts(counts),
        *unpack_lazy_linear(logits),
        log_library,
        theta,
        *unpack_lazy_linear(dropout),
    )
    return log_prob


class CountInputs(NamedTuple):
    """Inputs of :class:`CountLogProb` that are tensors.

    `counts` is None for sparse counts, `values`, `indices` and `indptr` are None for dense ones. If
    `logits_weight` or `dropout_weight` is not None, `logits` or `dropout` are the features that the
    layer reads.
    """

    counts: Tensor | None
    values: Tensor | None
    indices: Tensor | None
    indptr: Tensor | None
    logits: Tensor
    logits_weight: Tensor | None
    logits_bias: Tensor | None
    log_library: Tensor
    theta: Tensor | None
    dropout: Tensor | None
    dropout_weight: Tensor | None
    dropout_bias: Tensor | None


class CountResults(NamedTuple):
    """Log-probability of each cell and its derivatives."""

    log_prob: Tensor
    grad_log_library: Tensor
    grad_logits: Tensor
    grad_theta: Tensor
    grad_dropout: Tensor
    grad_gene: Tensor
    """Weighted sums over the cells of the derivatives by logits, theta and dropout, [3, genes]."""


class CountLogProb(torch.autograd.Function):
    """Autograd function of :func:`count_log_prob`; its forward pass saves the derivatives."""

    @staticmethod
    def forward(ctx: Any, grad_enabled: bool, *tensors: Any) -> Tensor:
        """Log-probability, in nats; derivatives only if there may be a backward pass."""
        inputs = CountInputs(*tensors)
        need_grad = grad_enabled and any(ctx.needs_input_grad)
        results = compute_count_log_prob(inputs, None, need_grad=need_grad)
        ctx.save_for_backward(*inputs, *results)
        return results.log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of logits, library sizes, inverse dispersion and dropout."""
        inputs = CountInputs(*ctx.saved_tensors[: len(CountInputs._fields)])
        results = CountResults(*ctx.saved_tensors[len(CountInputs._fields) :])
        needs_grad: Any = CountInputs(*ctx.needs_input_grad[1:])
        grad_gene = weighted_sums(
            results.grad_gene,
            grad_output,
            lambda weight: compute_count_log_prob(inputs, weight, need_grad=True).grad_gene,
        )
        weight = grad_output.unsqueeze(-1)
        stacked = None
        if all(needs_grad[4:7]) and all(needs_grad[9:12]):
            stacked = stacked_head_gradients(inputs, results, weight)
        grad_logits: tuple[Tensor | None, ...]
        if stacked is not None:
            grad_logits = (*stacked[:2], grad_gene[0])
        else:
            grad_logits = lazy_linear_backward(
                results.grad_logits,
                inputs.logits,
                inputs.logits_weight,
                weight,
                grad_gene[0],
                needs_grad=needs_grad[4:7],
            )
        grad_log_library = None
        if needs_grad.log_library:
            grad_log_library = results.grad_log_library.unsqueeze(-1) * weight
        grad_theta = None
        if inputs.theta is not None and needs_grad.theta:
            per_cell = inputs.theta.shape == results.grad_theta.shape
            grad_theta = (
                results.grad_theta * weight if per_cell else grad_gene[1].view_as(inputs.theta)
            )
        grad_dropout: tuple[Tensor | None, ...] = (None, None, None)
        if stacked is not None:
            # The gradient of the features is that of both heads.
            grad_dropout = (None, stacked[2], grad_gene[2])
        elif inputs.dropout is not None:
            grad_dropout = lazy_linear_backward(
                results.grad_dropout,
                inputs.dropout,
                inputs.dropout_weight,
                weight,
                grad_gene[2],
                needs_grad=needs_grad[9:12],
            )
        return (*(None,) * 5, *grad_logits, grad_log_library, grad_theta, *grad_dropout)


def compute_count_log_prob(
    inputs: CountInputs, cell_weight: Tensor | None, *, need_grad: bool
) -> CountResults:
    """Run the kernel; results do not depend on the number of threads.

    Parameters
    ----------
    inputs
        Inputs of the autograd function.
    cell_weight
        Weight of each cell in `grad_gene`; ones if None.
    need_grad
        Whether derivatives are computed; otherwise their tensors are empty.
    """
    from cellvae.kernels.compiled.count_log_prob_numba import count_log_prob_kernel

    arrays = count_arrays(inputs, cell_weight)
    n_cells, n_genes = arrays.logits.shape
    range_size = cells_per_range(n_cells)
    results = allocate_count_results(inputs, arrays, need_grad=need_grad, range_size=range_size)
    job = CountLogProbJob(
        next_cell=0,
        n_cells=n_cells,
        n_genes=n_genes,
        n_theta_rows=arrays.theta.shape[0],
        n_dropout_rows=arrays.dropout.shape[0],
        n_nonzero=-1 if inputs.values is None else inputs.values.shape[0],
        need_grad=int(need_grad),
        cells_per_range=range_size,
        counts=arrays.counts.data_ptr(),
        values=arrays.values.data_ptr(),
        indices=arrays.indices.data_ptr(),
        indptr=arrays.indptr.data_ptr(),
        logits=arrays.logits.data_ptr(),
        logits_bias=arrays.logits_bias.data_ptr(),
        log_library=arrays.log_library.data_ptr(),
        theta=arrays.theta.data_ptr(),
        dropout=arrays.dropout.data_ptr(),
        dropout_bias=arrays.dropout_bias.data_ptr(),
        cell_weight=arrays.cell_weight.data_ptr(),
        log_prob=results.log_prob.data_ptr(),
        grad_log_library=results.grad_log_library.data_ptr(),
        grad_logits=results.grad_logits.data_ptr(),
        grad_theta=results.grad_theta.data_ptr(),
        grad_dropout=results.grad_dropout.data_ptr(),
        grad_gene=results.grad_gene.data_ptr(),
    )
    run_parallel(count_log_prob_kernel, job, choose_n_threads(n_cells))
    return results._replace(grad_gene=results.grad_gene.sum(0)) if need_grad else results


class CountArrays(NamedTuple):
    """Contiguous arrays that the kernel reads; those without use are empty."""

    counts: Tensor
    values: Tensor
    indices: Tensor
    indptr: Tensor
    logits: Tensor
    logits_bias: Tensor
    log_library: Tensor
    theta: Tensor
    dropout: Tensor
    dropout_bias: Tensor
    cell_weight: Tensor


def count_arrays(inputs: CountInputs, cell_weight: Tensor | None) -> CountArrays:
    """Arrays that the kernel reads, contiguous."""
    n_cells = inputs.log_library.shape[0]
    logits, dropout = head_outputs(inputs)
    n_genes = logits.shape[1]
    theta = None
    if inputs.theta is not None:
        theta = inputs.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION).view(-1, n_genes)
    arrays = (
        inputs.counts,
        inputs.values,
        inputs.indices,
        inputs.indptr,
        logits,
        zeros(n_genes) if inputs.logits_bias is None else inputs.logits_bias,
        inputs.log_library.reshape(n_cells),
        theta,
        dropout,
        zeros(n_genes) if inputs.dropout_bias is None else inputs.dropout_bias,
        ones(n_cells) if cell_weight is None else cell_weight,
    )
    return CountArrays(*(EMPTY if array is None else array.contiguous() for array in arrays))


def head_outputs(inputs: CountInputs) -> tuple[Tensor, Tensor | None]:
    """Logits and dropout logits, [cells, genes] each, without bias; None without zero inflation."""
    weights = stacked_head_weights(inputs)
    if weights is not None:
        features = inputs.logits.expand(2, *inputs.logits.shape)
        logits, dropout = torch.bmm(features, weights.transpose(1, 2)).unbind(0)
        return logits, dropout
    logits = matmul_without_bias(inputs.logits, inputs.logits_weight)
    if inputs.dropout is None:
        return logits, None
    return logits, matmul_without_bias(inputs.dropout, inputs.dropout_weight)


def stacked_head_weights(inputs: CountInputs) -> Tensor | None:
    """Weights of both heads, [2, genes, features], if their products may be one batched product.

    They may where both layers read the same features and their weights are adjacent in memory.
    """
    logits, dropout = inputs.logits, inputs.dropout
    if inputs.logits_weight is None or inputs.dropout_weight is None or dropout is None:
        return None
    if logits.data_ptr() != dropout.data_ptr() or torch.get_num_threads() > MAX_BATCHED_THREADS:
        return None
    return find_stack(inputs.logits_weight, inputs.dropout_weight)


def stacked_head_gradients(
    inputs: CountInputs, results: CountResults, cell_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients of the features and of the weights of both heads, by batched products.

    None where these are not possible; see :func:`stacked_head_weights`.
    """
    weights = stacked_head_weights(inputs)
    grads = find_stack(results.grad_logits, results.grad_dropout)
    if weights is None or grads is None:
        return None
    features = inputs.logits * cell_weight
    grad_logits_weight, grad_dropout_weight = torch.bmm(
        grads.transpose(1, 2), features.expand(2, *features.shape)
    ).unbind(0)
    first, second = torch.bmm(grads, weights).unbind(0)
    grad_features = torch.add(first, second).mul_(cell_weight)
    return grad_features, grad_logits_weight, grad_dropout_weight


def allocate_count_results(
    inputs: CountInputs, arrays: CountArrays, *, need_grad: bool, range_size: int
) -> CountResults:
    """Memory for the results of the kernel, `grad_gene` for each range of cells by itself."""
    logits, theta, dropout = arrays.logits, arrays.theta, arrays.dropout
    n_cells, n_genes = logits.shape
    shape_of_sums = (-(-n_cells // range_size), 3, n_genes)
    return CountResults(
        log_prob=logits.new_empty(n_cells),
        grad_log_library=logits.new_empty(n_cells),
        grad_logits=empty_grad(logits, inputs.logits_weight) if need_grad else EMPTY,
        grad_theta=torch.empty_like(theta) if need_grad and theta.shape[0] > 1 else EMPTY,
        grad_dropout=empty_grad(dropout, inputs.dropout_weight) if need_grad else EMPTY,
        grad_gene=logits.new_empty(shape_of_sums) if need_grad else EMPTY,
    )
