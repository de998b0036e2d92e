"""Counts of an h5ad file, dense or CSR, that are read from disk on access."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.column import check_indices

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers, Counts
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


@final
class DenseReader(Reader):
    """Reader of a dense dataset, [cells, genes]."""

    def __init__(self, matrix: CountMatrix) -> None:
        super().__init__(matrix)
        self.dataset = matrix.values

    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these rows of the file."""
        return rows * self.n_columns

    def read_rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """These rows of the file; the indices increase strictly."""
        parts = [self.read_run(run) for run in self.contiguous_runs(rows) if len(run)] or [
            self.dataset[:0]
        ]
        matrix = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return matrix if self.genes is None else matrix[:, self.genes]

    def read_run(self, run: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of the file, read as one slice."""
        first, last = int(run[0]), int(run[-1]) + 1
        rows: NDArray[Any] = self.dataset[first:last]
        return rows if len(run) == last - first else rows[run - first]


@final
class SparseReader(Reader):
    """Reader of a CSR group: data, indices and indptr."""

    def __init__(self, matrix: CountMatrix) -> None:
        super().__init__(matrix)
        group = matrix.values.group
        self.data, self.indices = group["data"], group["indices"]
        self.indptr = np.asarray(group["indptr"][:], dtype=np.int64)

    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these rows of the file."""
        return self.indptr[rows]

    def read_rows(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """These rows of the file; the indices increase strictly."""
        runs = [(int(run[0]), int(run[-1]) + 1) for run in self.contiguous_runs(rows) if len(run)]
        spans = [slice(int(self.indptr[first]), int(self.indptr[last])) for first, last in runs]
        read = np.concatenate([np.zeros(0, np.int64), *(np.arange(*run) for run in runs)])
        indptr = np.cumsum([0, *(self.indptr[read + 1] - self.indptr[read])])
        matrix = sparse.csr_matrix(
            (read_slices(self.data, spans), read_slices(self.indices, spans), indptr),
            shape=(len(read), self.n_columns),
        )
        if len(read) > len(rows):
            matrix = matrix[np.searchsorted(read, rows)]
        return matrix if self.genes is None else matrix[:, self.genes]


def read_slices(dataset: Any, spans: list[slice]) -> NDArray[Any]:
    """Slices of a dataset, concatenated."""
    if len(spans) == 1:
        return np.asarray(dataset[spans[0]])
    values = np.empty(sum(span.stop - span.start for span in spans), dtype=dataset.dtype)
    filled = 0
    for span in spans:
        part = dataset[span]
        values[filled : filled + len(part)] = part
        filled += len(part)
    return values


def make_reader(matrix: CountMatrix) -> Reader:
    """Reader of a matrix on disk, dense or CSR."""
    from anndata.abc import CSRDataset

    return SparseReader(matrix) if isinstance(matrix.values, CSRDataset) else DenseReader(matrix)


@final
class BackedColumn:
    """Counts that are read from the file batch by batch.

    Rows are read in the order of the file and then reordered, so the indices of cells may be in
    any order and may repeat.
    """

    def __init__(self, matrix: CountMatrix) -> None:
        self.reader = make_reader(matrix)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.reader)

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these indices, [cells, genes]."""
        matrix = self.reader.read(check_indices(cells, len(self)))
        dense = matrix.toarray() if sparse.issparse(matrix) else matrix
        return torch.from_numpy(dense.astype(np.float32, order="C", copy=False))
