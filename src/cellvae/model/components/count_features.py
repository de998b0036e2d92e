"""Features that an encoder reads of counts, dense or sparse."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import log1p_totals, use_compiled

Where = Literal["encoder", "decoder", "none", "both"]
"""Networks in which a layer is used."""


def log1p(counts: Tensor | CSRBatch) -> Tensor | CSRBatch:
    """Logarithm of 1 + counts."""
    if isinstance(counts, CSRBatch):
        return counts._replace(values=counts.values.log1p())
    return counts.log1p()


def total_counts(counts: Tensor | CSRBatch) -> Float[Tensor, "cells 1"]:
    """Sum of the counts of each cell."""
    return (
        counts.sum_by_cell() if isinstance(counts, CSRBatch) else counts.sum(dim=-1, keepdim=True)
    )


def log1p_and_totals(
    counts: Tensor | CSRBatch,
) -> tuple[Tensor | CSRBatch, Float[Tensor, "cells 1"]]:
    """Logarithm of 1 + counts, and the sum of the counts of each cell."""
    if isinstance(counts, CSRBatch) and use_compiled(counts, "log1p_totals"):
        return log1p_totals(counts)
    return log1p(counts), total_counts(counts)
