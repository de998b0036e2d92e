"""Log-likelihood of detected regions straight from what a decoder gives, with its gradient."""

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
from cellvae.kernels.openmp import cells_per_range, run_parallel


def detection_log_likelihood(
    counts: Float[Tensor, "cells regions"] | CSRBatch,
    logits: Float[Tensor, "cells regions"] | LazyLinear,
    log_depth: Float[Tensor, "cells 1"],
    log_factor: Float[Tensor, " regions"],
) -> Float[Tensor, " cells"]:
    """Log-likelihood of which regions of each cell are detected, in nats.

    The same as `log_prob` of :class:`~cellvae.distributions.detection.Detection`, summed over
    regions, in one pass that leaves the gradient too. On the CPU, in single precision.

    Parameters
    ----------
    counts
        Counts, all of them or those that are not zero; those above zero are detected.
    logits
        Log-odds of a region being accessible, or the layer that gives them.
    log_depth, log_factor
        Logarithm of the chance that an accessible region is detected, by cell and by region.
    """
    given: tuple[Tensor | None, ...] = (None, *counts[:3])
    if not isinstance(counts, CSRBatch):
        given = (counts, None, None, None)
    value: Tensor = DetectionLogLikelihood.apply(
        torch.is_grad_enabled(), *given, *unpack_lazy_linear(logits), log_depth, log_factor
    )
    return value


class DetectionInputs(NamedTuple):
    """Inputs of the function, as autograd sees them.

    `logits` are the features of a layer where its weight is given.
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


class DetectionResults(NamedTuple):
    """Log-likelihood of each cell and its derivatives."""

    value: Tensor
    grad_depth: Tensor
    grad_logits: Tensor
    grad_region: Tensor
    """Sums over the cells, by logits and factors, [2, regions]; each cell has a weight."""


class DetectionLogLikelihood(torch.autograd.Function):
    """Log-likelihood of each cell; the derivatives are computed along with it and kept."""

    @staticmethod
    def forward(ctx: Any, derived: bool, *given: Any) -> Tensor:
        """Log-likelihood, in nats; `derived` is whether there may be a backward pass."""
        inputs = DetectionInputs(*given)
        results = compute_log_prob(inputs, None, need_grad=derived and any(ctx.needs_input_grad))
        ctx.save_for_backward(*inputs, *results)
        return results.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to logits, depths and factors."""
        inputs = DetectionInputs(*ctx.saved_tensors[: len(DetectionInputs._fields)])
        results = DetectionResults(*ctx.saved_tensors[len(DetectionInputs._fields) :])
        grad_region = weighted_sums(
            results.grad_region,
            grad,
            lambda w: compute_log_prob(inputs, w, need_grad=True).grad_region,
        )
        weight = grad.unsqueeze(-1)
        grad_logits = lazy_linear_backward(
            results.grad_logits,
            inputs.logits,
            inputs.weight,
            weight,
            grad_region[0],
            needs_grad=ctx.needs_input_grad[5:8],
        )
        return (
            *(None,) * 5,
            *grad_logits,
            results.grad_depth.unsqueeze(-1) * weight,
            grad_region[1],
        )


def compute_log_prob(
    inputs: DetectionInputs, weight: Tensor | None, *, need_grad: bool
) -> DetectionResults:
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
    from cellvae.kernels.compiled.bernoulli_log_prob_numba import kernel

    logits = matmul_without_bias(inputs.logits, inputs.weight)
    n_cells, n_regions = logits.shape
    none = logits.new_empty((0, 0))
    at_once = cells_per_range(n_cells)
    results = DetectionResults(
        value=logits.new_empty(n_cells),
        grad_depth=logits.new_empty(n_cells),
        grad_logits=empty_grad(logits, inputs.weight) if need_grad else none,
        grad_region=logits.new_empty((-(-n_cells // at_once), 2, n_regions)) if need_grad else none,
    )
    # With expm1 what is left of a chance close to one is not lost.
    log_depth = inputs.log_depth.reshape(n_cells)
    given = [
        *(inputs.counts, inputs.values, inputs.indices, inputs.indptr, logits),
        logits.new_zeros(n_regions) if inputs.bias is None else inputs.bias,
        *(log_depth, log_depth.exp(), -log_depth.expm1()),
        *(inputs.log_factor, inputs.log_factor.exp(), -inputs.log_factor.expm1()),
        logits.new_ones(n_cells) if weight is None else weight,
    ]
    tensors = [none if tensor is None else tensor.contiguous() for tensor in given]
    n_entries = -1 if inputs.values is None else len(inputs.values)
    sizes = [0, n_cells, n_regions, n_entries, 0, int(need_grad), at_once]
    addresses = [tensor.data_ptr() for tensor in (*tensors, *results)]
    job = np.array([*sizes, *addresses], dtype=np.int64)
    job[4] = job.ctypes.data
    run_parallel(kernel, job, n_cells)
    return results._replace(grad_region=results.grad_region.sum(0)) if need_grad else results
