"""Chunks of a count matrix that fit into the CPU cache, for one pass over all values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from scipy import sparse

from cellvae.data.storage.disk.backed_column import make_reader
from cellvae.data.storage.disk.matrix_reader import Reader
from cellvae.data.storage.disk.stored_reader import StoredReader, read_csr
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cellvae.data.storage.count_matrix import CountMatrix

CHUNK_SIZE = 2**18
"""Values per chunk: 1 MB of single precision, which fits into the cache."""
MAX_LOADED = 2**22
"""Values read from disk at a time."""


class Chunk(ABC):
    """Some values of a matrix, with the cells and genes that they belong to."""

    values: NDArray[Any]
    n_major: int
    """Number of cells, or of genes where the matrix is stored by gene."""

    @abstractmethod
    def coordinates(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and genes of the values that a mask selects."""

    @abstractmethod
    def mark_nonempty(self, nonempty: NDArray[np.bool_]) -> None:
        """Set the entries of cells with a value above 0 to True in `nonempty`, [all cells]."""


@final
class DenseChunk(Chunk):
    """All values of consecutive cells, [cells, genes]; `first` is the index of the first cell."""

    def __init__(self, values: NDArray[Any], first: int) -> None:
        self.values = values
        self.n_major = len(values)
        self.first = first

    def coordinates(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and genes of the values that a mask selects."""
        cells, genes = np.nonzero(mask)
        return cells + self.first, genes

    def mark_nonempty(self, nonempty: NDArray[np.bool_]) -> None:
        """Set the entries of cells with a value above 0 to True in `nonempty`, [all cells]."""
        nonempty[self.first : self.first + len(self.values)] = self.values.max(axis=1) > 0


@final
class SparseChunk(Chunk):
    """Stored values of consecutive cells (CSR) or genes (CSC).

    `minor` has the gene (CSR) or cell (CSC) of each value; `first` is the index of the first cell
    or gene.
    """

    def __init__(
        self,
        values: NDArray[Any],
        minor: NDArray[Any],
        indptr: NDArray[Any],
        first: int,
        by_cell: bool,
    ) -> None:
        self.values = values
        self.n_major = len(indptr) - 1
        self.minor = minor
        self.indptr = indptr
        self.first = first
        self.by_cell = by_cell

    def coordinates(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and genes of the values that a mask selects."""
        positions = np.flatnonzero(mask)
        major = np.searchsorted(self.indptr, positions, side="right") - 1 + self.first
        minor = self.minor[positions].astype(np.int64)
        return (major, minor) if self.by_cell else (minor, major)

    def mark_nonempty(self, nonempty: NDArray[np.bool_]) -> None:
        """Set the entries of cells with a value above 0 to True in `nonempty`, [all cells]."""
        if not self.by_cell:
            nonempty[self.minor[self.values > 0]] = True
            return
        has_values = np.diff(self.indptr) > 0
        if has_values.any() and self.values.min() <= 0:
            maxima = np.maximum.reduceat(self.values, self.indptr[:-1][has_values])
            has_values[has_values] = maxima > 0
        nonempty[self.first : self.first + len(has_values)] |= has_values


def iter_chunks(matrix: CountMatrix) -> Iterator[Chunk]:
    """Chunks that cover every value of a matrix once; duplicate entries are summed first."""
    if not matrix.on_disk:
        yield from iter_chunks_in_memory(matrix.values, 0, matrix.where)
        return
    reader: Reader = make_reader(matrix)
    for first, last in reader.spans(MAX_LOADED):
        yield from iter_chunks_in_memory(reader.read(np.arange(first, last)), first, matrix.where)


def iter_chunks_of_files(
    readers: Sequence[StoredReader], where: str
) -> Iterator[tuple[int, Chunk]]:
    """Chunks of matrices that share cells, which are read once, with the number of the matrix."""
    for first, last in readers[0].spans(MAX_LOADED):
        read = read_csr(readers, np.arange(first, last))
        for number, (reader, rows) in enumerate(zip(readers, read, strict=True)):
            shape = (rows.n_cells, reader.n_genes)
            values = sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=shape)
            for chunk in iter_chunks_in_memory(values, first, where):
                yield number, chunk


def iter_chunks_in_memory(values: Any, first: int, where: str) -> Iterator[Chunk]:
    """Chunks of a matrix in memory whose first row is the cell with index `first`."""
    if isinstance(values, np.ndarray):
        step = max(1, CHUNK_SIZE // max(1, values.shape[1]))
        for start in range(0, len(values), step):
            yield DenseChunk(np.asarray(values[start : start + step]), first + start)
        return
    if not values.has_canonical_format:
        values = values.copy()
        values.sum_duplicates()
    yield from iter_sparse_chunks(values, first, where)


def iter_sparse_chunks(matrix: sparse.spmatrix, first: int, where: str) -> Iterator[Chunk]:
    """Chunks of a CSR or CSC matrix, each of whole cells or whole genes."""
    by_cell = matrix.format == "csr"
    n_major, n_minor = matrix.shape if by_cell else matrix.shape[::-1]
    indptr = np.asarray(matrix.indptr)
    start = 0
    while start < n_major:
        fitting = int(np.searchsorted(indptr, indptr[start] + CHUNK_SIZE, side="right")) - 1
        stop = min(max(fitting, start + 1), n_major)
        entries = slice(indptr[start], indptr[stop])
        minor = np.asarray(matrix.indices[entries])
        if minor.size and (minor.min() < 0 or minor.max() >= n_minor):
            raise InvalidDataError(
                f"Expected indices below {n_minor:,} in the sparse matrix {where}; got "
                f"{minor.min():,} to {minor.max():,}. The matrix is corrupt: create it again."
            )
        yield SparseChunk(
            np.asarray(matrix.data[entries]),
            minor,
            indptr[start : stop + 1] - indptr[start],
            first + start if by_cell else start,
            by_cell,
        )
        start = stop
