"""What reads cells of a matrix on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cellvae.data.storage.count_matrix import CountMatrix

MAX_SKIP = 2**14
"""Largest gap between two rows, in values, that is read and discarded instead of a new read."""


class Reader(ABC):
    """Reader of cells of a matrix on disk, restricted to the cells and genes of a `CountMatrix`."""

    def __init__(self, matrix: CountMatrix) -> None:
        self.cells = matrix.cells
        self.genes = matrix.genes
        self.n_stored, self.n_columns = (int(n) for n in matrix.values.shape)

    def __len__(self) -> int:
        """Count the cells."""
        return self.n_stored if self.cells is None else len(self.cells)

    @abstractmethod
    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these rows of the file."""

    @abstractmethod
    def read_rows(self, rows: NDArray[np.int64]) -> Any:
        """These rows of the file; the indices increase strictly."""

    def read(self, cells: NDArray[np.int64]) -> Any:
        """Matrix of the cells with these indices, in this order, [cells, genes]."""
        rows = cells if self.cells is None else self.cells[cells]
        unique, inverse = np.unique(rows, return_inverse=True)
        matrix = self.read_rows(unique)
        return matrix if np.array_equal(unique, rows) else matrix[inverse.reshape(-1)]

    def spans(self, n_values: int) -> list[tuple[int, int]]:
        """Ranges (first, end) of consecutive cells with about `n_values` stored values each."""
        rows = np.arange(self.n_stored) if self.cells is None else self.cells
        sizes = self.values_before(rows + 1) - self.values_before(rows)
        span = np.cumsum(sizes) // n_values
        edges = [0, *(np.flatnonzero(np.diff(span)) + 1).tolist(), len(rows)]
        return [
            (first, last) for first, last in zip(edges, edges[1:], strict=False) if last > first
        ]

    def contiguous_runs(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Increasing rows, split at gaps of more than `MAX_SKIP` values."""
        skipped = self.values_before(rows[1:]) - self.values_before(rows[:-1] + 1)
        return np.split(rows, np.flatnonzero(skipped > MAX_SKIP) + 1)
