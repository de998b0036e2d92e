"""Distribution of the log fold change of each gene, over paired draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.kernels.compiled.job_layouts import LOG_FOLD_CHANGE_ROWS, LogFoldChangeSummaryJob
from cellvae.kernels.openmp import run_parallel

MIN_GENES_PER_THREAD = 64
"""Number of genes below which a further thread does not pay."""


class LogFoldChangeSummary(NamedTuple):
    """Statistics of the log2 fold change of each gene over the draws, [genes], in float64."""

    up: Tensor
    """Fraction of the draws that are at least delta."""
    down: Tensor
    """Fraction of the draws that are below minus delta."""
    mean: Tensor
    median: Tensor
    std: Tensor
    """Standard deviation, with the number of draws as the divisor."""
    min: Tensor
    max: Tensor


def log_fold_change_summary(
    first: Float[Tensor, "draws genes"],
    second: Float[Tensor, "draws genes"],
    pseudocount: float,
    delta: float,
) -> LogFoldChangeSummary:
    """Statistics of log2((first + pseudocount) / (second + pseudocount)) of each gene.

    One pass over both tensors on as many threads as torch uses, with memory for 16 genes per
    thread. For float32 on the CPU.

    Parameters
    ----------
    first, second
        Expression in paired draws, not negative.
    pseudocount
        Added to both; at least 1e-30.
    delta
        Smallest absolute change that counts as a change.
    """
    from cellvae.kernels.compiled.log_fold_change_summary_numba import (
        log_fold_change_summary_kernel,
    )

    n_draws, n_genes = first.shape
    inputs = first.contiguous(), second.contiguous()
    options = np.array([pseudocount, delta], dtype=np.float32)
    statistics = torch.empty((len(LOG_FOLD_CHANGE_ROWS), n_genes), dtype=torch.float64)
    job = LogFoldChangeSummaryJob(
        next_gene=0,
        n_draws=n_draws,
        n_genes=n_genes,
        first=inputs[0].data_ptr(),
        second=inputs[1].data_ptr(),
        pseudocount_and_delta=options.ctypes.data,
        statistics=statistics.data_ptr(),
    )
    n_threads = max(1, min(torch.get_num_threads(), n_genes // MIN_GENES_PER_THREAD))
    run_parallel(log_fold_change_summary_kernel, job, n_threads)
    rows = LOG_FOLD_CHANGE_ROWS._asdict()
    return LogFoldChangeSummary(**{name: statistics[row] for name, row in rows.items()})
