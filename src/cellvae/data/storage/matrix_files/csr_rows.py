"""Cells in CSR form, as they are read from a file: arrays without a class of scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellvae.data.storage.sparsetools import csr_take, has_canonical_format, sort_indices

MAX_INT32 = 2**31 - 1


class CSRRows(NamedTuple):
    """Values, gene indices and row pointers of some cells, [cells, genes]."""

    data: NDArray[Any]
    indices: NDArray[Any]
    indptr: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    def take(self, rows: NDArray[np.int64]) -> CSRRows:
        """Cells with these indices, in this order; indices may repeat."""
        if len(rows) == self.n_cells and np.array_equal(rows, np.arange(len(rows))):
            return self
        longest = int(np.diff(self.indptr).max(initial=0)) * len(rows)
        indptr = self.indptr if longest >= MAX_INT32 else self.small_indptr
        indices = self.indices.astype(indptr.dtype, copy=False)
        data, columns, pointers = csr_take(self.data, indices, indptr, rows)
        return CSRRows(data, columns.astype(np.int32, copy=False), pointers.astype(np.int64))

    @property
    def small_indptr(self) -> NDArray[Any]:
        """Row pointers of the type of the indices if they fit, as compiled functions want them."""
        dtype = np.int32 if self.indptr[-1] <= MAX_INT32 else np.int64
        return self.indptr.astype(dtype, copy=False)

    def rename_genes(self, new_index: NDArray[np.int32]) -> CSRRows:
        """Cells whose genes have other indices, -1 for genes that are left out; indices sorted."""
        indices = new_index[self.indices]
        is_known = indices >= 0
        if not is_known.all():
            before = np.concatenate([[0], np.cumsum(is_known)])
            rows = CSRRows(self.data[is_known], indices[is_known], before[self.indptr])
        else:
            rows = CSRRows(self.data, indices, self.indptr)
        return rows.with_sorted_genes()

    def with_sorted_genes(self) -> CSRRows:
        """Cells whose gene indices are sorted, and where repeated ones are summed."""
        indptr = self.small_indptr
        indices = self.indices.astype(indptr.dtype, copy=False)
        if has_canonical_format(indices, indptr):
            return self
        data, indices = self.data.copy(), indices.copy()
        sort_indices(data, indices, indptr)
        is_first = np.ones(len(indices), dtype=bool)
        is_first[1:] = indices[1:] != indices[:-1]
        is_first[self.indptr[:-1][np.diff(self.indptr) > 0]] = True
        pointers = self.indptr
        if not is_first.all():
            data = np.add.reduceat(data, np.flatnonzero(is_first), dtype=data.dtype)
            indices = indices[is_first]
            pointers = np.concatenate([[0], np.cumsum(is_first)])[self.indptr]
        return CSRRows(data, indices.astype(np.int32, copy=False), pointers)


def concatenate_rows(parts: Sequence[CSRRows]) -> CSRRows:
    """Cells of several parts, one after the other; there is at least one part."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([part.indptr[-1] for part in parts])
    shifts = [0, *ends[:-1].tolist()]
    pointers = [part.indptr[1:] + shift for part, shift in zip(parts, shifts, strict=True)]
    return CSRRows(
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *pointers]),
    )
