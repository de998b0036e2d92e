"""Arrays that the kernels of likelihoods of counts read: counts of either layout, and constants."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch

# The backward pass saves it, which is not possible for a tensor of inference mode.
with torch.inference_mode(False):
    EMPTY = torch.empty(0, 0)
    """Array in place of one that a kernel does not read or write."""


def unpack_counts(
    counts: Float[Tensor, "cells features"] | CSRBatch,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Dense counts, and values, indices and row pointers of sparse ones; None for what is not."""
    if isinstance(counts, CSRBatch):
        return None, counts.values, counts.indices, counts.indptr
    return counts, None, None, None


@lru_cache(maxsize=8)
def zeros(size: int) -> Float[Tensor, " size"]:
    """Vector of zeros, which nobody writes to."""
    return torch.zeros(size)


@lru_cache(maxsize=8)
def ones(size: int) -> Float[Tensor, " size"]:
    """Vector of ones, which nobody writes to."""
    return torch.ones(size)
