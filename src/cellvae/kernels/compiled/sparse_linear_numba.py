"""Kernels of `sparse_linear`: product of CSR features with a weight, and gradient of the weight."""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types

from cellvae.kernels.compiled.functions.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.functions.sparse_rows_numba import add_sparse_row, copy_values
from cellvae.kernels.compiled.functions.vector_math_numba import f32, i32, i64, u64
from cellvae.kernels.compiled.job_layouts import SPARSE_LINEAR
from cellvae.kernels.kernel_cache import compile_kernel

CELLS_PER_TURN = 4
"""Cells that a thread multiplies at a time, if the whole weight fits into its cache."""
BYTES_PER_TILE = 1 << 18
"""Bytes of the weight that stay in the processor's cache while several cells read them."""
N_GENE_RANGES = 8
"""Ranges that the genes are split into for the gradient of the weight."""


@njit(error_model="numpy")
def lower_bound(indices, low, high, gene):
    """First position in `low:high` with a gene that is not below `gene`; `indices` are sorted."""
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < gene:
            low = middle + 1
        else:
            high = middle
    return low


@njit(error_model="numpy")
def csr_matmul(start, end, values, indices, indptr, weight, bias, out):
    """Output of the cells from `start` to before `end`, one tile of the weight after the other.

    Parameters
    ----------
    start, end
        Range of cells.
    values, indices, indptr
        Features of all cells in CSR format.
    weight
        Weight by gene, [genes, out].
    bias
        Bias, [out].
    out
        Output, [cells, out].
    """
    n_genes, n_out = weight.shape
    tile_width = max(BYTES_PER_TILE // (4 * n_out), 1)
    done = np.empty(end - start, i64)
    for c in range(start, end):
        copy_values(bias, out[c])
        done[c - start] = indptr[c]
    for first in range(0, n_genes, tile_width):
        for c in range(start, end):
            i = done[c - start]
            last = indptr[c + 1]
            if first + tile_width < n_genes:
                last = lower_bound(indices, i, min(last, i + tile_width), first + tile_width)
            done[c - start] = last
            add_sparse_row(out[c], values, indices, i, last, weight)


@njit(error_model="numpy")
def csr_to_csc(first, end, values, indices, indptr, starts, cells, csc_values):
    """Store the features of the genes from `first` to before `end` in CSC format.

    Parameters
    ----------
    first, end
        Range of genes.
    values, indices, indptr
        Features of all cells in CSR format.
    starts
        Start of each gene of the range, and the end of the last one, [genes of the range + 2];
        written but for the last element.
    cells, csc_values
        Cell and value of each feature, gene by gene, of all genes; written.
    """
    n_cells, width = indptr.shape[0] - 1, end - first
    bounds = np.empty((2, n_cells), i64)
    starts[:] = 0
    n_before = 0
    for c in range(n_cells):
        low = lower_bound(indices, indptr[c], indptr[c + 1], first)
        high = lower_bound(indices, low, indptr[c + 1], end)
        bounds[0, c] = low
        bounds[1, c] = high
        n_before += low - indptr[c]
        # Unsigned indices, which numba does not compare with zero.
        for i in range(u64(low), u64(high)):
            starts[u64(indices[i] - first + 2)] += 1
    starts[0] = n_before
    starts[1] = n_before
    for j in range(width):
        starts[j + 2] += starts[j + 1]
    for c in range(n_cells):
        for i in range(u64(bounds[0, c]), u64(bounds[1, c])):
            j = u64(indices[i] - first + 1)
            k = u64(starts[j])
            cells[k] = c
            csc_values[k] = values[i]
            starts[j] = i64(k) + 1


@njit(error_model="numpy")
def csc_matmul(first, end, starts, cells, csc_values, grad_output, out):
    """Gradient of the weight of the genes from `first` to before `end`, [genes, out]."""
    for j in range(end - first):
        row = out[first + j]
        row[:] = f32(0.0)
        add_sparse_row(row, csc_values, cells, starts[j], starts[j + 1], grad_output)


@compile_kernel
def sparse_linear_kernel(job):
    """Multiply a few cells of a `SparseLinearJob` at a time until none are left."""
    at = SPARSE_LINEAR
    fields = carray(job, len(at), types.int64)
    n_cells, n_genes, n_out = fields[at.n_cells], fields[at.n_genes], fields[at.n_out]
    n_nonzero, n_threads = fields[at.n_nonzero], fields[at.n_threads]
    values = carray(pointer_at(fields[at.values]), n_nonzero, f32)
    indices = carray(pointer_at(fields[at.indices]), n_nonzero, i32)
    indptr = carray(pointer_at(fields[at.indptr]), n_cells + 1, types.int64)
    weight = carray(pointer_at(fields[at.factor]), (n_genes, n_out), f32)
    bias = carray(pointer_at(fields[at.bias]), n_out, f32)
    out = carray(pointer_at(fields[at.result]), (n_cells, n_out), f32)
    fits = 4 * n_genes * n_out <= BYTES_PER_TILE
    n_at_once = CELLS_PER_TURN if fits else max((n_cells + n_threads - 1) // n_threads, 1)
    while True:
        start = atomic_fetch_add(job, at.next_item, n_at_once)
        if start >= n_cells:
            break
        csr_matmul(
            start, min(start + n_at_once, n_cells), values, indices, indptr, weight, bias, out
        )


@compile_kernel
def sparse_linear_grad_weight_kernel(job):
    """Compute the gradient of ranges of the genes of a `SparseLinearJob` until none are left."""
    at = SPARSE_LINEAR
    fields = carray(job, len(at), types.int64)
    n_cells, n_genes, n_out = fields[at.n_cells], fields[at.n_genes], fields[at.n_out]
    n_nonzero = fields[at.n_nonzero]
    values = carray(pointer_at(fields[at.values]), n_nonzero, f32)
    indices = carray(pointer_at(fields[at.indices]), n_nonzero, i32)
    indptr = carray(pointer_at(fields[at.indptr]), n_cells + 1, types.int64)
    gene_indptr = carray(pointer_at(fields[at.gene_indptr]), n_genes + 1, types.int64)
    cells = carray(pointer_at(fields[at.cells_of_genes]), n_nonzero, i32)
    csc_values = carray(pointer_at(fields[at.values_of_genes]), n_nonzero, f32)
    grad_output = carray(pointer_at(fields[at.factor]), (n_cells, n_out), f32)
    out = carray(pointer_at(fields[at.result]), (n_genes, n_out), f32)
    width = (n_genes + N_GENE_RANGES - 1) // N_GENE_RANGES
    starts = np.empty(width + 2, i64)
    while True:
        part = atomic_fetch_add(job, at.next_item, 1)
        if part >= N_GENE_RANGES:
            break
        first = part * width
        if first >= n_genes:
            continue
        end = min(first + width, n_genes)
        if fields[at.is_transposed] == 0:
            csr_to_csc(
                first, end, values, indices, indptr, starts[: end - first + 2], cells, csc_values
            )
            copy_values(starts[: end - first], gene_indptr[first:end])
            if end == n_genes:
                gene_indptr[n_genes] = n_nonzero
        else:
            copy_values(gene_indptr[first : end + 1], starts)
        csc_matmul(first, end, starts, cells, csc_values, grad_output, out)
