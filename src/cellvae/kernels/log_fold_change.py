"""Distribution of the log fold change of every gene, over paired draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.kernels.openmp import call_in_threads

MIN_GENES = 64
"""Genes below which a further thread does not pay."""


class LogFoldChanges(NamedTuple):
    """Distribution of the log2 fold change of each gene, [genes], in double precision."""

    up: Tensor
    """Share of the draws that are at least delta."""
    down: Tensor
    """Share of the draws that are below minus delta."""
    mean: Tensor
    median: Tensor
    std: Tensor
    """Standard deviation, divided by the number of draws."""
    min: Tensor
    max: Tensor


def log_fold_changes(
    first: Float[Tensor, "draws genes"],
    second: Float[Tensor, "draws genes"],
    pseudocount: float,
    delta: float,
) -> LogFoldChanges:
    """Distribution of log2((first + pseudocount) / (second + pseudocount)) of each gene.

    One pass over both, by as many threads as torch has, in memory for 16 genes each. On the CPU, in
    single precision.

    Parameters
    ----------
    first, second
        Expression in paired draws, not negative.
    pseudocount
        Positive number added to both; not below 1e-30.
    delta
        Least change that counts.
    """
    from cellvae.kernels.compiled.log_fold_change_numba import kernel

    n_draws, n_genes = first.shape
    one, other = first.contiguous(), second.contiguous()
    given = np.array([pseudocount, delta], dtype=np.float32)
    results = torch.empty((7, n_genes), dtype=torch.float64)
    addresses = [one.data_ptr(), other.data_ptr(), given.ctypes.data, results.data_ptr()]
    job = np.array([0, n_draws, n_genes, n_genes, n_genes, 0, *addresses], dtype=np.int64)
    job[5] = job.ctypes.data
    n_threads = max(1, min(torch.get_num_threads(), n_genes // MIN_GENES))
    assert kernel.address is not None
    call_in_threads(kernel.address, job.ctypes.data, n_threads)
    return LogFoldChanges(*results)
