"""Count matrices of several files as one, with the genes of all by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.matrix_files.csr_rows import CSRRows, concatenate_rows
from cellvae.data.storage.matrix_files.stored_matrix import StoredMatrix


@final
class JoinedMatrix:
    """Cells of several stored matrices, one matrix after the other, [cells, genes].

    Parameters
    ----------
    parts
        Matrices in files.
    genes
        For each matrix the index of its genes in the joined one, -1 for those that are left out;
        None where they are the same.
    n_genes
        Number of genes of the joined matrix.
    cells
        Indices of some of the cells, in any order; None for all.
    """

    def __init__(
        self,
        parts: Sequence[StoredMatrix],
        genes: Sequence[NDArray[np.int32] | None],
        n_genes: int,
        cells: NDArray[np.int64] | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self.genes = tuple(genes)
        self.first_cells = np.cumsum([0, *(part.n_cells for part in self.parts)])
        self.first_values = np.cumsum([0, *(part.n_values for part in self.parts)])
        self.cells = cells
        n_cells = int(self.first_cells[-1]) if cells is None else len(cells)
        self.shape = (n_cells, n_genes)

    def __len__(self) -> int:
        """Count the cells."""
        return self.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type that holds the values of all files."""
        return np.result_type(*(part.dtype for part in self.parts))

    @property
    def cells_per_chunk(self) -> int:
        """Cells that most files store, and compress, as one piece; 1 without compression."""
        sizes = [
            part.chunk_values * part.n_cells / max(1, part.n_values)
            for part in self.parts
            if part.n_cells
        ]
        return max(1, round(float(np.median(sizes)))) if sizes else 1

    @property
    def values_per_cell(self) -> float:
        """Mean number of values of a cell that are stored, zeros of dense files too."""
        return float(self.first_values[-1]) / max(1, int(self.first_cells[-1]))

    def values_before(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these cells; the end counts as a cell."""
        if self.cells is None:
            return self.stored_before(cells)
        return self.selected_before[cells]

    @cached_property
    def selected_before(self) -> NDArray[np.int64]:
        """Number of stored values before each selected cell, and of all."""
        cells = np.zeros(0, np.int64) if self.cells is None else self.cells
        sizes = self.stored_before(cells + 1) - self.stored_before(cells)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    def stored_before(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these cells of all files."""
        which = np.searchsorted(self.first_cells[1:-1], cells, side="right")
        before = np.empty(len(cells), dtype=np.int64)
        for number in np.unique(which).tolist():
            own = which == number
            inside = self.parts[number].values_before(cells[own] - self.first_cells[number])
            before[own] = inside + self.first_values[number]
        return before

    def read(self, cells: NDArray[np.int64]) -> CSRRows:
        """Cells with these indices, in this order; indices may repeat. Gene indices are sorted.

        Raises
        ------
        InvalidDataError
            If a file was replaced since it was opened, or cannot be read.
        """
        return read_together([self], cells)[0]

    def iter_csr(self, n_cells: int) -> Iterator[sparse.csr_matrix]:
        """CSR matrices of so many cells each, in the order of the cells."""
        for first in range(0, len(self), n_cells):
            rows = self.read(np.arange(first, min(first + n_cells, len(self))))
            shape = (rows.n_cells, self.shape[1])
            yield sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=shape)

    def shares_cells(self, other: JoinedMatrix) -> bool:
        """Whether another matrix has the same cells of the same matrices in files."""
        own, others = ([part.identity for part in each.parts] for each in (self, other))
        return own == others and are_same_cells(self.cells, other.cells)

    def with_joined_genes(self, rows: CSRRows, number: int) -> CSRRows:
        """Cells of one file with the genes of all."""
        genes = self.genes[number]
        return rows.with_sorted_genes() if genes is None else rows.rename_genes(genes)

    def select_genes(self, genes: NDArray[np.int64] | None) -> JoinedMatrix:
        """The same cells with some genes in this order; nothing is read.

        Parameters
        ----------
        genes
            Indices of different genes, -1 for a gene without counts; None for all.
        """
        if genes is None or np.array_equal(genes, np.arange(self.shape[1])):
            return self
        present = np.flatnonzero(genes >= 0)
        new_index = np.full(self.shape[1], -1, dtype=np.int32)
        new_index[genes[present]] = present
        renamed = [
            new_index if own is None else np.where(own < 0, -1, new_index[own]).astype(np.int32)
            for own in self.genes
        ]
        return JoinedMatrix(self.parts, renamed, len(genes), self.cells)

    def select_cells(self, cells: NDArray[np.int64]) -> JoinedMatrix:
        """Some of the cells in this order. Nothing is read."""
        stored = cells if self.cells is None else self.cells[cells]
        return JoinedMatrix(self.parts, self.genes, self.shape[1], stored)

    def signature(self) -> str:
        """Hex digest of the files as they were opened, and of which cells and genes are read."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            digest.update(repr(part.identity).encode())
        for selected in (*self.genes, self.cells):
            digest.update(b"all" if selected is None else selected.tobytes())
        return digest.hexdigest()


def are_same_cells(first: NDArray[np.int64] | None, second: NDArray[np.int64] | None) -> bool:
    """Whether two choices of cells are the same; None are all cells."""
    if first is None or second is None:
        return first is second
    return first is second or np.array_equal(first, second)


def read_together(matrices: Sequence[JoinedMatrix], cells: NDArray[np.int64]) -> list[CSRRows]:
    """Cells of several matrices that have the same cells and differ in their genes, read once.

    Parameters
    ----------
    matrices
        At least one matrix; others :meth:`~JoinedMatrix.shares_cells` with it.
    cells
        Indices of cells, in any order; they may repeat. Gene indices of the result are sorted.

    Raises
    ------
    InvalidDataError
        If a file was replaced since it was opened, or cannot be read.
    """
    selected = matrices[0].cells
    stored = cells if selected is None else selected[cells]
    if (np.diff(stored) > 0).all():
        return read_increasing(matrices, stored)
    unique, inverse = np.unique(stored, return_inverse=True)
    positions = inverse.reshape(-1)
    return [rows.take(positions) for rows in read_increasing(matrices, unique)]


def read_increasing(matrices: Sequence[JoinedMatrix], cells: NDArray[np.int64]) -> list[CSRRows]:
    """Cells of all files with these indices, which increase strictly, for each matrix."""
    first = matrices[0]
    bounds = np.searchsorted(cells, first.first_cells)
    parts: list[list[CSRRows]] = [[] for _ in matrices]
    for number, part in enumerate(first.parts):
        own = cells[bounds[number] : bounds[number + 1]] - first.first_cells[number]
        if not len(own):
            continue
        read = part.read(own)
        for matrix, rows in zip(matrices, parts, strict=True):
            rows.append(matrix.with_joined_genes(read, number))
    empty = CSRRows(np.zeros(0, first.dtype), np.zeros(0, np.int32), np.zeros(1, np.int64))
    return [concatenate_rows(rows) if rows else empty for rows in parts]
