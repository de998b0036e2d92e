"""Checksums of the counts of each cell, independent of how the counts are stored."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.disk.backed_column import BackedColumn
from cellvae.data.storage.memory import DenseColumn, SparseColumn
from cellvae.data.storage.sparsetools import csr_take, has_canonical_format, sort_indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cellvae.data.storage.column import Column

VALUES_PER_BLOCK = 2**20
"""Values that are processed at a time."""


def cell_checksums(column: Column, cells: NDArray[np.int64] | None = None) -> NDArray[np.uint32]:
    """Checksum of the counts of each cell, [cells].

    It is the upper half of the sum over genes j of b_j r_j modulo 2^64, where b_j are the 32 bits
    of the count in single precision, as a model reads it, and r_j is a random number of the gene.
    A count of 0 adds nothing, so the checksum is the same for dense, CSR and CSC counts of any
    dtype, and for genes stored in any order, with or without explicit zeros. Two cells that differ
    in one count have the same checksum with a probability of 2^-32.

    Parameters
    ----------
    column
        Counts, or other values of each cell, [cells, values].
    cells
        Indices of the cells; None for all.
    """
    cells = np.arange(len(column)) if cells is None else cells
    parts = [block_checksums(column, block) for block in iter_cell_blocks(column, cells)]
    sums = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
    return (sums >> np.uint64(32)).astype(np.uint32)


def iter_cell_blocks(column: Column, cells: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Blocks of consecutive cells with about `VALUES_PER_BLOCK` values each."""
    size = max(1, int(VALUES_PER_BLOCK // max(values_per_cell(column), 1)))
    for start in range(0, len(cells), size):
        yield cells[start : start + size]


def values_per_cell(column: Column) -> float:
    """Mean number of stored values per cell."""
    if isinstance(column, SparseColumn):
        return len(column.data) / max(len(column), 1)
    if isinstance(column, DenseColumn):
        return column.values.shape[1]
    if isinstance(column, BackedColumn):
        reader = column.reader
        return int(reader.values_before(np.array([reader.n_stored]))[0]) / max(reader.n_stored, 1)
    return column.take(torch.zeros(1, dtype=torch.int64)).shape[1] if len(column) else 1


def block_checksums(column: Column, cells: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Full 64-bit checksums of some cells, [cells]."""
    if isinstance(column, SparseColumn):
        arrays = csr_take(column.data, column.indices, column.indptr, cells)
        shape = (len(cells), column.n_genes)
        return csr_checksums(sparse.csr_matrix(arrays, shape=shape))
    if isinstance(column, BackedColumn):
        counts = column.reader.read(cells)
        return csr_checksums(counts) if sparse.issparse(counts) else dense_checksums(counts)
    return dense_checksums(column.take(torch.from_numpy(cells)).numpy())


def csr_checksums(matrix: sparse.csr_matrix) -> NDArray[np.uint64]:
    """Full 64-bit checksums of the rows of a CSR matrix, [rows]."""
    indptr, indices = matrix.indptr, matrix.indices
    values = matrix.data.astype(np.float32)
    if not has_canonical_format(indices, indptr):
        indices = indices.copy()
        sort_indices(values, indices, indptr)
        if not has_canonical_format(indices, indptr):
            # Duplicate entries are summed, as they are where a model reads them.
            return dense_checksums(matrix.astype(np.float32).toarray())
    bits = sparse.csr_matrix((float32_bits(values), indices, indptr), shape=matrix.shape)
    sums: NDArray[np.uint64] = bits @ splitmix64(matrix.shape[1])
    return sums


def dense_checksums(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Full 64-bit checksums of the rows of a dense array, [rows]."""
    single = np.array(values, dtype=np.float32, order="C")
    return float32_bits(single) @ splitmix64(single.shape[1])


def float32_bits(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Bits of values of single precision, those of 0 for -0; changes the array in place."""
    values += np.float32(0)
    return values.view(np.uint32).astype(np.uint64)


@lru_cache(maxsize=4)
def splitmix64(n: int) -> NDArray[np.uint64]:
    """First n random numbers of SplitMix64 (Steele et al. 2014, OOPSLA) with seed 0, [n]."""
    state = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
