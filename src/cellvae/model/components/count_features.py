"""Features that an encoder reads of counts, dense or sparse."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch

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
