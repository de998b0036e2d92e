"""Counts of an h5ad file that stays on disk: dense, or CSR."""

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
"""Values read and thrown away rather than asking the file once more: about as fast."""


class Reader(ABC):
    """Reader of whole cells of a matrix on disk, restricted to chosen cells and genes."""

    def __init__(self, matrix: CountMatrix) -> None:
        self.cells = matrix.cells
        self.genes = matrix.genes
        self.n_stored, self.n_columns = (int(n) for n in matrix.values.shape)

    def __len__(self) -> int:
        """Count the cells."""
        return self.n_stored if self.cells is None else len(self.cells)

    @abstractmethod
    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stored values that lie before each of these rows of the file."""

    @abstractmethod
    def read_rows(self, rows: NDArray[np.int64]) -> Any:
        """Rows of the file, given in increasing order, none twice."""

    def read(self, cells: NDArray[np.int64]) -> Any:
        """Matrix of the cells with these numbers in this order, [cells, genes]."""
        rows = cells if self.cells is None else self.cells[cells]
        distinct, places = np.unique(rows, return_inverse=True)
        taken = self.read_rows(distinct)
        return taken if np.array_equal(distinct, rows) else taken[places.reshape(-1)]

    def spans(self, n_values: int) -> list[tuple[int, int]]:
        """Stretches of cells that hold about `n_values` stored values each."""
        rows = np.arange(self.n_stored) if self.cells is None else self.cells
        sizes = self.values_before(rows + 1) - self.values_before(rows)
        stretch = np.cumsum(sizes) // n_values
        edges = [0, *(np.flatnonzero(np.diff(stretch)) + 1).tolist(), len(rows)]
        return [
            (first, last) for first, last in zip(edges, edges[1:], strict=False) if last > first
        ]

    def contiguous_runs(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rows in increasing order, cut wherever much would be read in between for nothing."""
        skipped = self.values_before(rows[1:]) - self.values_before(rows[:-1] + 1)
        return np.split(rows, np.flatnonzero(skipped > MAX_SKIP) + 1)


@final
class DenseReader(Reader):
    """Reader of a dense dataset, [cells, genes]."""

    def __init__(self, matrix: CountMatrix) -> None:
        super().__init__(matrix)
        self.dataset = matrix.values

    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stored values that lie before each of these rows of the file."""
        return rows * self.n_columns

    def read_rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of the file, given in increasing order, none twice."""
        parts = [self.read_run(run) for run in self.contiguous_runs(rows) if len(run)] or [
            self.dataset[:0]
        ]
        taken = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return taken if self.genes is None else taken[:, self.genes]

    def read_run(self, run: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of the file that lie close to each other."""
        first, last = int(run[0]), int(run[-1]) + 1
        stretch: NDArray[Any] = self.dataset[first:last]
        return stretch if len(run) == last - first else stretch[run - first]


@final
class SparseReader(Reader):
    """Reader of a CSR group: values, their genes, and where each cell begins."""

    def __init__(self, matrix: CountMatrix) -> None:
        super().__init__(matrix)
        group = matrix.values.group
        self.data, self.indices = group["data"], group["indices"]
        self.starts = np.asarray(group["indptr"][:], dtype=np.int64)

    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stored values that lie before each of these rows of the file."""
        return self.starts[rows]

    def read_rows(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """Rows of the file, given in increasing order, none twice."""
        runs = [(int(run[0]), int(run[-1]) + 1) for run in self.contiguous_runs(rows) if len(run)]
        spans = [slice(int(self.starts[first]), int(self.starts[last])) for first, last in runs]
        got = np.concatenate([np.zeros(0, np.int64), *(np.arange(*run) for run in runs)])
        ends = np.cumsum([0, *(self.starts[got + 1] - self.starts[got])])
        matrix = sparse.csr_matrix(
            (read_slices(self.data, spans), read_slices(self.indices, spans), ends),
            shape=(len(got), self.n_columns),
        )
        if len(got) > len(rows):
            matrix = matrix[np.searchsorted(got, rows)]
        return matrix if self.genes is None else matrix[:, self.genes]


def read_slices(dataset: Any, spans: list[slice]) -> NDArray[Any]:
    """Stretches of a dataset one after the other."""
    if len(spans) == 1:
        return np.asarray(dataset[spans[0]])
    whole = np.empty(sum(span.stop - span.start for span in spans), dtype=dataset.dtype)
    filled = 0
    for span in spans:
        part = dataset[span]
        whole[filled : filled + len(part)] = part
        filled += len(part)
    return whole


def make_reader(matrix: CountMatrix) -> Reader:
    """Reader for a matrix on disk."""
    from anndata.abc import CSRDataset

    return SparseReader(matrix) if isinstance(matrix.values, CSRDataset) else DenseReader(matrix)


@final
class BackedColumn:
    """Counts that are read from the file when taken.

    Rows are read in the order of the file and put into the order asked for, so cells may be
    asked for in any order and more than once.
    """

    def __init__(self, matrix: CountMatrix) -> None:
        self.reader = make_reader(matrix)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.reader)

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these numbers, [cells, genes]."""
        taken = self.reader.read(check_indices(cells, len(self)))
        dense = taken.toarray() if sparse.issparse(taken) else taken
        return torch.from_numpy(dense.astype(np.float32, order="C", copy=False))
