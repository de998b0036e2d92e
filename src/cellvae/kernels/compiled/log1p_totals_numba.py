"""Kernel of `log1p_totals`: logarithms of 1 + counts of sparse cells, and sums of the counts."""

from __future__ import annotations

from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.vector_math_numba import SUM_FLAGS, f32, log1p32
from cellvae.kernels.compiled.job_layouts import LOG1P_TOTALS
from cellvae.kernels.kernel_cache import compile_kernel

CELLS_AT_ONCE = 16
"""Cells that a thread computes at a time."""


@njit(error_model="numpy", fastmath=SUM_FLAGS)
def log1p_sum(values, out):
    """Write the logarithms of 1 + values to `out`; the sum of the values."""
    total = f32(0.0)
    for i in range(values.shape[0]):
        out[i] = log1p32(values[i])
        total += values[i]
    return total


@compile_kernel
def log1p_totals_kernel(job):
    """Compute a few cells of a `Log1PTotalsJob` at a time until none are left."""
    at = LOG1P_TOTALS
    fields = carray(job, len(at), types.int64)
    n_cells, n_nonzero = fields[at.n_cells], fields[at.n_nonzero]
    values = carray(pointer_at(fields[at.values]), n_nonzero, f32)
    indptr = carray(pointer_at(fields[at.indptr]), n_cells + 1, types.int64)
    logarithms = carray(pointer_at(fields[at.logarithms]), n_nonzero, f32)
    totals = carray(pointer_at(fields[at.totals]), n_cells, f32)
    while True:
        start = atomic_fetch_add(job, at.next_cell, CELLS_AT_ONCE)
        if start >= n_cells:
            break
        for c in range(start, min(start + CELLS_AT_ONCE, n_cells)):
            first, last = indptr[c], indptr[c + 1]
            totals[c] = log1p_sum(values[first:last], logarithms[first:last])
