"""Product of sparse features with weights, and its derivative, as work for a team of threads."""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc, njit, types

from cellvae.kernels.compiled.atomics_numba import atomic_fetch_add, pointer_at
from cellvae.kernels.compiled.vector_math_numba import FASTMATH_FLAGS, f32, i32, i64

CELLS_PER_JOB = 4
"""Cells that a thread takes at a time, of the product, where all weights fit next to it."""
BYTES_PER_TILE = 1 << 20
"""Memory of the weights that stay next to the processor while several cells read them."""
N_GENE_RANGES = 8
"""Ranges of genes that threads share out, of the derivative."""


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_four(sums, a, b, c, d, one, two, three, four):
    """Add four rows, each times a number."""
    for j in range(sums.shape[0]):
        sums[j] += (a * one[j] + b * two[j]) + (c * three[j] + d * four[j])


@njit(error_model="numpy", fastmath=FASTMATH_FLAGS)
def add_one(sums, a, one):
    """Add a row times a number."""
    for j in range(sums.shape[0]):
        sums[j] += a * one[j]


@njit(error_model="numpy")
def lower_bound(genes, low, high, gene):
    """First place from `low` to `high` whose gene is not below this one; genes are in order."""
    while low < high:
        middle = (low + high) // 2
        if genes[middle] < gene:
            low = middle + 1
        else:
            high = middle
    return low


@njit(error_model="numpy")
def csr_matmul(start, end, values, genes, starts, weights, bias, out):
    """Sum of the weights of the genes of each cell, times the values, some genes at a time.

    Parameters
    ----------
    start, end
        Range of the cells.
    values, genes, starts
        Values of all cells, the gene of each, and where each cell begins, [cells + 1].
    weights
        Weights of each gene, [genes, features].
    bias
        What each sum begins with, [features].
    out
        Sums, [cells, features].
    """
    n_genes, n_features = weights.shape
    width = max(BYTES_PER_TILE // (4 * n_features), 1)
    done = np.empty(end - start, i64)
    for c in range(start, end):
        out[c][:] = bias
        done[c - start] = starts[c]
    for first in range(0, n_genes, width):
        for c in range(start, end):
            sums = out[c]
            i = done[c - start]
            last = starts[c + 1]
            if first + width < n_genes:
                last = lower_bound(genes, i, min(last, i + width), first + width)
            done[c - start] = last
            while i + 4 <= last:
                add_four(
                    sums,
                    values[i], values[i + 1], values[i + 2], values[i + 3],
                    weights[genes[i]], weights[genes[i + 1]],
                    weights[genes[i + 2]], weights[genes[i + 3]],
                )  # fmt: skip
                i += 4
            while i < last:
                add_one(sums, values[i], weights[genes[i]])
                i += 1


@njit(error_model="numpy")
def csr_to_csc(first, end, values, genes, starts):
    """Entries of the genes from `first` to before `end`, gene by gene, those of a gene by cell.

    Where each gene begins, and the cell and the value of every entry.
    """
    n_cells = starts.shape[0] - 1
    width = end - first
    begins = np.zeros(width + 2, i64)
    places = np.empty((2, n_cells), i64)
    for c in range(n_cells):
        low = lower_bound(genes, starts[c], starts[c + 1], first)
        high = lower_bound(genes, low, starts[c + 1], end)
        places[0, c] = low
        places[1, c] = high
        for i in range(low, high):
            begins[genes[i] - first + 2] += 1
    for j in range(width):
        begins[j + 2] += begins[j + 1]
    cells = np.empty(begins[width + 1], i32)
    own = np.empty(begins[width + 1], f32)
    for c in range(n_cells):
        for i in range(places[0, c], places[1, c]):
            j = genes[i] - first + 1
            k = begins[j]
            cells[k] = c
            own[k] = values[i]
            begins[j] = k + 1
    return begins, cells, own


@njit(error_model="numpy")
def csr_matmul_grad_weight(first, end, values, genes, starts, by_out, out):
    """Derivative by the weights of the genes from `first` to before `end`, [genes, features]."""
    begins, cells, own = csr_to_csc(first, end, values, genes, starts)
    for j in range(end - first):
        sums = out[first + j]
        sums[:] = f32(0.0)
        i = begins[j]
        last = begins[j + 1]
        while i + 4 <= last:
            add_four(
                sums,
                own[i], own[i + 1], own[i + 2], own[i + 3],
                by_out[cells[i]], by_out[cells[i + 1]], by_out[cells[i + 2]], by_out[cells[i + 3]],
            )  # fmt: skip
            i += 4
        while i < last:
            add_one(sums, own[i], by_out[cells[i]])
            i += 1


@cfunc(types.void(types.voidptr), cache=True)
def forward_kernel(job):
    """Product: each thread takes a few cells, until none are left.

    A job is a row of whole numbers: cells taken, cells, genes, features, entries, the address of
    the job itself, the addresses of values, genes, starts, weights, bias and results, and the
    number of threads.
    """
    known = carray(job, 13, types.int64)
    n_cells, n_genes, n_features, n_entries = known[1], known[2], known[3], known[4]
    values = carray(pointer_at(known[6]), n_entries, f32)
    genes = carray(pointer_at(known[7]), n_entries, i32)
    starts = carray(pointer_at(known[8]), n_cells + 1, types.int64)
    weights = carray(pointer_at(known[9]), (n_genes, n_features), f32)
    bias = carray(pointer_at(known[10]), n_features, f32)
    out = carray(pointer_at(known[11]), (n_cells, n_features), f32)
    fits = 4 * n_genes * n_features <= BYTES_PER_TILE
    at_once = CELLS_PER_JOB if fits else max((n_cells + known[12] - 1) // known[12], 1)
    while True:
        start = atomic_fetch_add(known[5], at_once)
        if start >= n_cells:
            break
        csr_matmul(start, min(start + at_once, n_cells), values, genes, starts, weights, bias, out)


@cfunc(types.void(types.voidptr), cache=True)
def backward_kernel(job):
    """Derivative: each thread takes a range of genes, until none are left.

    A job is as that of :func:`multiply`, with the derivatives by the product, [cells, features], in
    place of the weights, and nothing in place of the bias.
    """
    known = carray(job, 12, types.int64)
    n_cells, n_genes, n_features, n_entries = known[1], known[2], known[3], known[4]
    values = carray(pointer_at(known[6]), n_entries, f32)
    genes = carray(pointer_at(known[7]), n_entries, i32)
    starts = carray(pointer_at(known[8]), n_cells + 1, types.int64)
    by_out = carray(pointer_at(known[9]), (n_cells, n_features), f32)
    out = carray(pointer_at(known[11]), (n_genes, n_features), f32)
    width = (n_genes + N_GENE_RANGES - 1) // N_GENE_RANGES
    while True:
        part = atomic_fetch_add(known[5], 1)
        if part >= N_GENE_RANGES:
            break
        first = part * width
        if first < n_genes:
            csr_matmul_grad_weight(
                first, min(first + width, n_genes), values, genes, starts, by_out, out
            )
