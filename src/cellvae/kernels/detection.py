"""Log-likelihood of detected regions straight from what a decoder gives, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.entries import Entries


def detection_log_likelihood(
    counts: Float[Tensor, "cells regions"] | Entries,
    logits: Float[Tensor, "cells regions"],
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
        Log-odds of a region being accessible.
    log_depth, log_factor
        Logarithm of the chance that an accessible region is detected, by cell and by region.
    """
    given: tuple[Tensor | None, ...] = (None, *counts[:3])
    if not isinstance(counts, Entries):
        given = (counts, None, None, None)
    value: Tensor = DetectionLogLikelihood.apply(*given, logits, log_depth, log_factor)
    return value


class DetectionLogLikelihood(torch.autograd.Function):
    """Log-likelihood of each cell; the derivatives are computed along with it and kept."""

    @staticmethod
    def forward(
        ctx: Any,
        counts: Tensor | None,
        entries: Tensor | None,
        genes: Tensor | None,
        starts: Tensor | None,
        logits: Tensor,
        log_depth: Tensor,
        log_factor: Tensor,
    ) -> Tensor:
        """Log-likelihood, in nats."""
        from cellvae.kernels.detections import work
        from cellvae.kernels.team import share_out

        n_cells, n_regions = logits.shape
        none = logits.new_empty((0, 0))
        wanted = any(ctx.needs_input_grad)
        value, by_depth = logits.new_empty(n_cells), logits.new_empty(n_cells)
        by_logits = logits.new_empty((n_cells, n_regions)) if wanted else none
        by_factor = torch.empty_like(by_logits)
        given = (
            *(none if part is None else part for part in (counts, entries, genes, starts)),
            logits,
            log_depth.reshape(n_cells),
            log_factor,
        )
        tensors = [tensor.contiguous() for tensor in given]
        tensors += [value, by_logits, by_depth, by_factor]
        n_entries = -1 if entries is None else len(entries)
        addresses = [tensor.data_ptr() for tensor in tensors]
        job = np.array([0, n_cells, n_regions, n_entries, 0, wanted, *addresses], dtype=np.int64)
        job[4] = job.ctypes.data
        share_out(work, job, n_cells)
        ctx.save_for_backward(by_logits, by_depth, by_factor)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to logits, depths and factors."""
        by_logits, by_depth, by_factor = ctx.saved_tensors
        return (
            *(None, None, None, None),
            by_logits.mul_(grad.unsqueeze(-1)) if ctx.needs_input_grad[4] else None,
            (by_depth * grad).unsqueeze(-1) if ctx.needs_input_grad[5] else None,
            grad @ by_factor if ctx.needs_input_grad[6] else None,
        )
