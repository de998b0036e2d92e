"""Logarithms of sparse counts, and the totals of the cells, in one pass."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels.compiled.job_layouts import Log1PTotalsJob
from cellvae.kernels.openmp import choose_n_threads, run_parallel


def log1p_totals(counts: CSRBatch) -> tuple[CSRBatch, Float[Tensor, "cells 1"]]:
    """Natural logarithm of 1 + counts, and the sum of the counts of each cell.

    For counts of 0 and more in float32 on the CPU; a logarithm of what is below -1 is NaN. There is
    no gradient.
    """
    from cellvae.kernels.compiled.log1p_totals_numba import log1p_totals_kernel

    values, indptr = counts.values.contiguous(), counts.indptr.contiguous()
    logarithms = torch.empty_like(values)
    totals = values.new_empty(counts.n_cells, 1)
    job = Log1PTotalsJob(
        next_cell=0,
        n_cells=counts.n_cells,
        n_nonzero=values.shape[0],
        values=values.data_ptr(),
        indptr=indptr.data_ptr(),
        logarithms=logarithms.data_ptr(),
        totals=totals.data_ptr(),
    )
    run_parallel(log1p_totals_kernel, job, choose_n_threads(counts.n_cells))
    return counts._replace(values=logarithms), totals
