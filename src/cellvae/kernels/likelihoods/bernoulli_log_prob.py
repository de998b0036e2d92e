"""Log-probability of detected regions from the output of a decoder, with its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels.compiled.job_layouts import BernoulliLogProbJob
from cellvae.kernels.layers.lazy_linear import (
    LazyLinear,
    empty_grad,
    lazy_linear_backward,
    matmul_without_bias,
    unpack_lazy_linear,
    weighted_sums,
)
from cellvae.kernels.likelihoods.kernel_arrays import EMPTY, ones, unpack_counts, zeros
from cellvae.kernels.openmp import cells_per_range, choose_n_threads, run_parallel


def bernoulli_log_prob(
    counts: Float[Tensor, "cells regions"] | CSRBatch,
    logits: Float[Tensor, "cells regions"] | LazyLinear,
    log_depth: Float[Tensor, "cells 1"],
    log_factor: Float[Tensor, " regions"],
) -> Float[Tensor, " cells"]:
    """Log-probability of the detected regions of each cell, in nats, summed over regions.

    Equal to `log_prob` of :class:`~cellvae.distributions.detection.Detection` up to rounding;
    gradients are computed in the same pass. For float32 on the CPU.

    Parameters
    ----------
    counts
        Counts, dense or sparse; a region with a count above zero is detected.
    logits
        Log-odds of a region being accessible.
    log_depth, log_factor
        Logarithm of the probability that an accessible region is detected: the factor of the cell
        and that of the region.
    """
    log_prob: Tensor = BernoulliLogProb.apply(
        torch.is_grad_enabled(),
        *unpack_counts(counts),
        *unpack_lazy_linear(logits),
        log_depth,
        log_factor,
    )
    return log_prob


class BernoulliInputs(NamedTuple):
    """Inputs of :class:`BernoulliLogProb` that are tensors.

    `counts` is None for sparse counts, `values`, `indices` and `indptr` are None for dense ones. If
    `weight` is not None, `logits` are the features that the layer reads.
    """

    counts: Tensor | None
    values: Tensor | None
    indices: Tensor | None
    indptr: Tensor | None
    logits: Tensor
    weight: Tensor | None
    bias: Tensor | None
    log_depth: Tensor
    log_factor: Tensor


class BernoulliResults(NamedTuple):
    """Log-probability of each cell and its derivatives."""

    log_prob: Tensor
    grad_log_depth: Tensor
    grad_logits: Tensor
    grad_region: Tensor
    """Weighted sums over the cells of the derivatives by logits and factors, [2, regions]."""


class BernoulliLogProb(torch.autograd.Function):
    """Autograd function of :func:`bernoulli_log_prob`; its forward pass saves the derivatives."""

    @staticmethod
    def forward(ctx: Any, grad_enabled: bool, *tensors: Any) -> Tensor:
        """Log-probability, in nats; derivatives only if there may be a backward pass."""
        inputs = BernoulliInputs(*tensors)
        need_grad = grad_enabled and any(ctx.needs_input_grad)
        results = compute_bernoulli_log_prob(inputs, None, need_grad=need_grad)
        ctx.save_for_backward(*inputs, *results)
        return results.log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of logits, depths and factors."""
        inputs = BernoulliInputs(*ctx.saved_tensors[: len(BernoulliInputs._fields)])
        results = BernoulliResults(*ctx.saved_tensors[len(BernoulliInputs._fields) :])
        grad_region = weighted_sums(
            results.grad_region,
            grad_output,
            lambda weight: compute_bernoulli_log_prob(inputs, weight, need_grad=True).grad_region,
        )
        weight = grad_output.unsqueeze(-1)
        grad_logits = lazy_linear_backward(
            results.grad_logits,
            inputs.logits,
            inputs.weight,
            weight,
            grad_region[0],
            needs_grad=ctx.needs_input_grad[5:8],
        )
        grad_log_depth = results.grad_log_depth.unsqueeze(-1) * weight
        return (*(None,) * 5, *grad_logits, grad_log_depth, grad_region[1])


def compute_bernoulli_log_prob(
    inputs: BernoulliInputs, cell_weight: Tensor | None, *, need_grad: bool
) -> BernoulliResults:
    """Run the kernel; results do not depend on the number of threads.

    Parameters
    ----------
    inputs
        Inputs of the autograd function.
    cell_weight
        Weight of each cell in `grad_region`; ones if None.
    need_grad
        Whether derivatives are computed; otherwise their tensors are empty.
    """
    from cellvae.kernels.compiled.bernoulli_log_prob_numba import bernoulli_log_prob_kernel

    arrays = bernoulli_arrays(inputs, cell_weight)
    logits = arrays["logits"]
    n_cells, n_regions = logits.shape
    range_size = cells_per_range(n_cells)
    shape_of_sums = (-(-n_cells // range_size), 2, n_regions)
    results = BernoulliResults(
        log_prob=logits.new_empty(n_cells),
        grad_log_depth=logits.new_empty(n_cells),
        grad_logits=empty_grad(logits, inputs.weight) if need_grad else EMPTY,
        grad_region=logits.new_empty(shape_of_sums) if need_grad else EMPTY,
    )
    addresses = {k: t.data_ptr() for k, t in {**arrays, **results._asdict()}.items()}
    job = BernoulliLogProbJob(
        next_cell=0,
        n_cells=n_cells,
        n_regions=n_regions,
        n_nonzero=-1 if inputs.values is None else len(inputs.values),
        need_grad=int(need_grad),
        cells_per_range=range_size,
        **addresses,
    )
    run_parallel(bernoulli_log_prob_kernel, job, choose_n_threads(n_cells))
    return results._replace(grad_region=results.grad_region.sum(0)) if need_grad else results


def bernoulli_arrays(inputs: BernoulliInputs, cell_weight: Tensor | None) -> dict[str, Tensor]:
    """Contiguous arrays that the kernel reads, by field of the job; those without use are empty."""
    logits = matmul_without_bias(inputs.logits, inputs.weight)
    n_cells, n_regions = logits.shape
    log_depth = inputs.log_depth.reshape(n_cells)
    arrays = {
        "counts": inputs.counts,
        "values": inputs.values,
        "indices": inputs.indices,
        "indptr": inputs.indptr,
        "logits": logits,
        "logits_bias": zeros(n_regions) if inputs.bias is None else inputs.bias,
        "log_depth": log_depth,
        "depth": log_depth.exp(),
        # 1 - depth would lose its digits where the depth is close to one.
        "depth_complement": -log_depth.expm1(),
        "log_factor": inputs.log_factor,
        "factor": inputs.log_factor.exp(),
        "factor_complement": -inputs.log_factor.expm1(),
        "cell_weight": ones(n_cells) if cell_weight is None else cell_weight,
    }
    return {k: EMPTY if tensor is None else tensor.contiguous() for k, tensor in arrays.items()}
