"""Log-likelihood of counts straight from what a decoder gives, with its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.entries import Entries
from cellvae.kernels.affine import Affine, layer_gradients, layer_result, parts, place_for, weighed
from cellvae.kernels.team import cells_of_range

LEAST, MOST = 1e-20, 1e15


def log_likelihood(
    counts: Float[Tensor, "cells genes"] | Entries,
    logits: Float[Tensor, "cells genes"] | Affine,
    log_size: Float[Tensor, "cells 1"],
    theta: Float[Tensor, " genes"] | Float[Tensor, "cells genes"] | None = None,
    dropout: Float[Tensor, "cells genes"] | Affine | None = None,
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
    if not isinstance(counts, Entries):
        given = (counts, None, None, None)
    value: Tensor = CountLogLikelihood.apply(
        torch.is_grad_enabled(), *given, *parts(logits), log_size, theta, *parts(dropout)
    )
    return value


class Inputs(NamedTuple):
    """Inputs of the function, as autograd sees them.

    `logits` and `dropout` are the features of a layer where its weight is given.
    """

    counts: Tensor | None
    entries: Tensor | None
    genes: Tensor | None
    starts: Tensor | None
    logits: Tensor
    logits_weight: Tensor | None
    logits_constant: Tensor | None
    log_size: Tensor
    theta: Tensor | None
    dropout: Tensor | None
    dropout_weight: Tensor | None
    dropout_constant: Tensor | None


class Results(NamedTuple):
    """Log-likelihood of each cell and its derivatives."""

    value: Tensor
    by_log_size: Tensor
    by_logits: Tensor
    by_theta: Tensor
    by_dropout: Tensor
    by_gene: Tensor
    """Sums over the cells, by logits, theta and dropout, [3, genes]; each cell has a weight."""


class CountLogLikelihood(torch.autograd.Function):
    """Log-likelihood of each cell; the derivatives are computed along with it and kept."""

    @staticmethod
    def forward(ctx: Any, derived: bool, *given: Any) -> Tensor:
        """Log-likelihood, in nats; `derived` is whether there may be a backward pass."""
        inputs = Inputs(*given)
        results = results_of(inputs, None, wanted=derived and any(ctx.needs_input_grad))
        ctx.save_for_backward(*inputs, *results)
        return results.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to logits, sizes, inverse dispersion and dropout."""
        inputs = Inputs(*ctx.saved_tensors[: len(Inputs._fields)])
        results = Results(*ctx.saved_tensors[len(Inputs._fields) :])
        needed: Any = Inputs(*ctx.needs_input_grad[1:])
        by_gene = weighed(
            results.by_gene, grad, lambda w: results_of(inputs, w, wanted=True).by_gene
        )
        weight = grad.unsqueeze(-1)
        by_logits = layer_gradients(
            results.by_logits,
            inputs.logits,
            inputs.logits_weight,
            weight,
            by_gene[0],
            needed=needed[4:7],
        )
        by_theta = None
        if inputs.theta is not None and needed.theta:
            per_cell = inputs.theta.shape == results.by_theta.shape
            by_theta = results.by_theta * weight if per_cell else by_gene[1].view_as(inputs.theta)
        by_dropout: tuple[Tensor | None, ...] = (None, None, None)
        if inputs.dropout is not None:
            by_dropout = layer_gradients(
                results.by_dropout,
                inputs.dropout,
                inputs.dropout_weight,
                weight,
                by_gene[2],
                needed=needed[9:12],
            )
        by_log_size = results.by_log_size.unsqueeze(-1) * weight if needed.log_size else None
        return (*(None,) * 5, *by_logits, by_log_size, by_theta, *by_dropout)


def results_of(inputs: Inputs, weight: Tensor | None, *, wanted: bool) -> Results:
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
    from cellvae.kernels.cells import work
    from cellvae.kernels.team import share_out

    theta, n_cells = inputs.theta, len(inputs.log_size)
    logits = layer_result(inputs.logits, inputs.logits_weight)
    n_genes = logits.shape[1]
    none, zero = logits.new_empty((0, 0)), logits.new_zeros(n_genes)
    dropout = none
    if inputs.dropout is not None:
        dropout = layer_result(inputs.dropout, inputs.dropout_weight)
    if theta is not None:
        theta = theta.clamp(LEAST, MOST).view(-1, n_genes)
    at_once = cells_of_range(n_cells)
    n_ranges = -(-n_cells // at_once)
    results = Results(
        value=logits.new_empty(n_cells),
        by_log_size=logits.new_empty(n_cells),
        # What was computed here can be written over.
        by_logits=place_for(logits, inputs.logits_weight) if wanted else none,
        by_theta=torch.empty_like(theta)
        if wanted and theta is not None and len(theta) > 1
        else none,
        by_dropout=place_for(dropout, inputs.dropout_weight) if wanted else none,
        by_gene=logits.new_empty((n_ranges, 3, n_genes)) if wanted else none,
    )
    given = [
        *(inputs.counts, inputs.entries, inputs.genes, inputs.starts, logits),
        zero if inputs.logits_constant is None else inputs.logits_constant,
        inputs.log_size.reshape(n_cells),
        *(theta, dropout),
        zero if inputs.dropout_constant is None else inputs.dropout_constant,
        logits.new_ones(n_cells) if weight is None else weight,
    ]
    tensors = [none if tensor is None else tensor.contiguous() for tensor in given]
    sizes = [0, n_cells, n_genes, 0 if theta is None else len(theta), len(dropout), 0]
    sizes += [-1 if inputs.entries is None else len(inputs.entries), int(wanted), at_once]
    addresses = [tensor.data_ptr() for tensor in (*tensors, *results)]
    job = np.array([*sizes, *addresses], dtype=np.int64)
    job[5] = job.ctypes.data
    share_out(work, job, n_cells)
    return results._replace(by_gene=results.by_gene.sum(0)) if wanted else results
