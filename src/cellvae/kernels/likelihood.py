"""Log-likelihood of counts straight from what a decoder gives, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.entries import Entries

LEAST, MOST = 1e-20, 1e15


def log_likelihood(
    counts: Float[Tensor, "cells genes"] | Entries,
    logits: Float[Tensor, "cells genes"],
    log_size: Float[Tensor, "cells 1"],
    theta: Float[Tensor, " genes"] | Float[Tensor, "cells genes"] | None = None,
    dropout: Float[Tensor, "cells genes"] | None = None,
) -> Float[Tensor, " cells"]:
    """Log-likelihood of the counts of each cell, in nats: Poisson, negative binomial or inflated.

    The same as `log_prob` of the distributions with the mean `log_size.exp() * logits.softmax(-1)`,
    summed over genes, in one pass that leaves the gradient too. On the CPU, in single precision.

    Parameters
    ----------
    counts
        Counts, all of them or those that are not zero.
    logits
        Logits of the share that each gene has of its cell.
    log_size
        Natural logarithm of the size of each cell.
    theta
        Inverse dispersion; None for the Poisson distribution.
    dropout
        Logits of a structural zero; None where there are none.
    """
    given: tuple[Tensor | None, ...] = (None, *counts[:3])
    if not isinstance(counts, Entries):
        given = (counts, None, None, None)
    value: Tensor = CountLogLikelihood.apply(*given, logits, log_size, theta, dropout)
    return value


class CountLogLikelihood(torch.autograd.Function):
    """Log-likelihood of each cell; the derivatives are computed along with it and kept."""

    @staticmethod
    def forward(
        ctx: Any,
        counts: Tensor | None,
        entries: Tensor | None,
        genes: Tensor | None,
        starts: Tensor | None,
        logits: Tensor,
        log_size: Tensor,
        theta: Tensor | None,
        dropout: Tensor | None,
    ) -> Tensor:
        """Log-likelihood, in nats."""
        n_cells, n_genes = logits.shape
        none = logits.new_empty((0, 0))
        value, by_log_size = logits.new_empty(n_cells), logits.new_empty(n_cells)
        wanted = any(ctx.needs_input_grad)
        by_logits = logits.new_empty((n_cells, n_genes)) if wanted else none
        by_theta = none if theta is None else torch.empty_like(by_logits)
        by_dropout = none if dropout is None else torch.empty_like(by_logits)
        given = (
            *(none if part is None else part for part in (counts, entries, genes, starts)),
            logits,
            log_size.reshape(n_cells),
            none if theta is None else theta.clamp(LEAST, MOST).view(-1, n_genes),
            none if dropout is None else dropout,
        )
        tensors = [tensor.contiguous() for tensor in given]
        tensors += [value, by_logits, by_log_size, by_theta, by_dropout]
        compute(tensors, n_cells, n_genes, wanted)
        ctx.save_for_backward(by_logits, by_log_size, by_theta, by_dropout)
        ctx.theta_shape = None if theta is None else theta.shape
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to logits, sizes, inverse dispersion and dropout."""
        by_logits, by_log_size, by_theta, by_dropout = ctx.saved_tensors
        weight = grad.unsqueeze(-1)
        grad_theta = None
        if ctx.needs_input_grad[6]:
            per_cell = ctx.theta_shape == by_theta.shape
            grad_theta = (
                by_theta.mul_(weight) if per_cell else (grad @ by_theta).view(ctx.theta_shape)
            )
        return (
            *(None, None, None, None),
            by_logits.mul_(weight) if ctx.needs_input_grad[4] else None,
            (by_log_size * grad).unsqueeze(-1) if ctx.needs_input_grad[5] else None,
            grad_theta,
            by_dropout.mul_(weight) if ctx.needs_input_grad[7] else None,
        )


def compute(tensors: list[Tensor], n_cells: int, n_genes: int, wanted: bool) -> None:
    """Fill the results in, by as many threads as torch has; they do not depend on their number."""
    from cellvae.kernels.cells import work
    from cellvae.kernels.team import share_out

    entries, starts, theta, dropout = tensors[1], tensors[3], tensors[6], tensors[7]
    n_entries = len(entries) if len(starts) else -1
    sizes = [0, n_cells, n_genes, theta.shape[0], dropout.shape[0], 0, n_entries]
    addresses = [tensor.data_ptr() for tensor in tensors]
    job = np.array([*sizes, *addresses, wanted], dtype=np.int64)
    job[5] = job.ctypes.data
    share_out(work, job, n_cells)
