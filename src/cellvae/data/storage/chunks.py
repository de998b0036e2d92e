"""Pieces of a matrix of counts, small enough for a fast cache, to look at every value once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

import numpy as np

from cellvae.data.storage.disk import Reader, make_reader
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from cellvae.data.storage.count_matrix import CountMatrix

CHUNK_SIZE = 2**18
"""Values looked at in one go: 1 MB of single precision, which stays in the cache."""
MAX_LOADED = 2**24
"""Values read from disk in one go."""


class Chunk(ABC):
    """Some values of a matrix, and which cells and genes they belong to."""

    values: NDArray[Any]

    @abstractmethod
    def coordinates(self, found: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and genes of the values that were found."""

    @abstractmethod
    def mark_nonempty(self, filled: NDArray[np.bool_]) -> None:
        """Mark the cells that have a value above 0 among all cells."""


@final
class DenseChunk(Chunk):
    """All values of some cells in a row, [cells, genes]."""

    def __init__(self, values: NDArray[Any], first: int) -> None:
        self.values = values
        self.first = first

    def coordinates(self, found: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and genes of the values that were found."""
        cells, genes = np.nonzero(found)
        return cells + self.first, genes

    def mark_nonempty(self, filled: NDArray[np.bool_]) -> None:
        """Mark the cells that have a value above 0 among all cells."""
        filled[self.first : self.first + len(self.values)] = self.values.max(axis=1) > 0


@final
class SparseChunk(Chunk):
    """Stored values of some cells (CSR) or some genes (CSC) in a row."""

    def __init__(
        self,
        values: NDArray[Any],
        minor: NDArray[Any],
        indptr: NDArray[Any],
        first: int,
        by_cell: bool,
    ) -> None:
        self.values = values
        self.minor = minor
        self.indptr = indptr
        self.first = first
        self.by_cell = by_cell

    def coordinates(self, found: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and genes of the values that were found."""
        places = np.flatnonzero(found)
        major = np.searchsorted(self.indptr, places, side="right") - 1 + self.first
        minor = self.minor[places].astype(np.int64)
        return (major, minor) if self.by_cell else (minor, major)

    def mark_nonempty(self, filled: NDArray[np.bool_]) -> None:
        """Mark the cells that have a value above 0 among all cells."""
        if not self.by_cell:
            filled[self.minor[self.values > 0]] = True
            return
        has_values = np.diff(self.indptr) > 0
        if has_values.any() and self.values.min() <= 0:
            most = np.maximum.reduceat(self.values, self.indptr[:-1][has_values])
            has_values[has_values] = most > 0
        filled[self.first : self.first + len(has_values)] |= has_values


def iter_chunks(matrix: CountMatrix) -> Iterator[Chunk]:
    """Every value of a matrix, piece by piece; values stored twice are added up first."""
    if not matrix.on_disk:
        yield from iter_chunks_in_memory(matrix.values, 0, matrix.where)
        return
    source: Reader = make_reader(matrix)
    for first, last in source.spans(MAX_LOADED):
        yield from iter_chunks_in_memory(source.read(np.arange(first, last)), first, matrix.where)


def iter_chunks_in_memory(values: Any, first: int, where: str) -> Iterator[Chunk]:
    """Every value of a matrix in memory, whose first row is cell number `first`."""
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
    """Every stored value of a CSR or CSC matrix, cut between cells or between genes."""
    by_cell = matrix.format == "csr"
    n_major, n_minor = matrix.shape if by_cell else matrix.shape[::-1]
    starts = np.asarray(matrix.indptr)
    start = 0
    while start < n_major:
        reach = int(np.searchsorted(starts, starts[start] + CHUNK_SIZE, side="right")) - 1
        stop = min(max(reach, start + 1), n_major)
        chosen = slice(starts[start], starts[stop])
        minor = np.asarray(matrix.indices[chosen])
        if minor.size and (minor.min() < 0 or minor.max() >= n_minor):
            raise InvalidDataError(
                f"Expected positions below {n_minor:,} in the sparse matrix {where}; got "
                f"{minor.min():,} to {minor.max():,}. The matrix is damaged: make it again."
            )
        yield SparseChunk(
            np.asarray(matrix.data[chosen]),
            minor,
            starts[start : stop + 1] - starts[start],
            first + start if by_cell else start,
            by_cell,
        )
        start = stop
