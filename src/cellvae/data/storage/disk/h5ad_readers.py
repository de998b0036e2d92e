"""Readers of one matrix of an h5ad file that AnnData has opened in backed mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.disk.matrix_reader import Reader

if TYPE_CHECKING:
    from cellvae.data.storage.count_matrix import CountMatrix


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
