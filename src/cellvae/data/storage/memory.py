"""Columns in host memory, and the rows of a data set that consist of columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import B
from cellvae.core.log import logger
from cellvae.data.storage.column import Column, check_indices
from cellvae.data.storage.sparsetools import FAST_DTYPES, csr_to_dense, has_canonical_format

if TYPE_CHECKING:
    from scipy import sparse

    from cellvae.core.shapes import CellNumbers, Counts


@final
class DenseColumn:
    """Counts in a dense array of any dtype; batches are converted to single precision.

    Parameters
    ----------
    values
        Array, [cells, genes of the AnnData]; not copied if its rows are contiguous.
    genes
        Indices of the model's genes in it; None for all in order.
    """

    def __init__(self, values: NDArray[Any], genes: NDArray[np.int64] | None = None) -> None:
        values = np.asarray(values)
        if values.shape[1] > 1 and values.strides[1] != values.itemsize:
            logger.info(
                "Copied the dense counts (%s) so that the values of a cell are contiguous.",
                format_megabytes(values.nbytes),
            )
            values = np.ascontiguousarray(values)
        self.values = values
        self.genes = None if genes is None else torch.from_numpy(genes)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.values)

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these indices, [cells, genes]."""
        counts = self.values[check_indices(cells, len(self))].astype(np.float32, copy=False)
        dense = torch.from_numpy(counts)
        return dense if self.genes is None else dense.index_select(1, self.genes)


@final
class SparseColumn:
    """Counts in a CSR matrix, whose arrays are not copied; batches are dense.

    Parameters
    ----------
    matrix
        CSR matrix or array, [cells, genes of the AnnData]; a CSC one is converted once.
    genes
        Indices of the model's genes in it, selected once; None for all in order.

    Attributes
    ----------
    data, indices, indptr
        The arrays of the CSR matrix.
    n_genes
        Number of genes of the model.
    """

    def __init__(self, matrix: sparse.spmatrix, genes: NDArray[np.int64] | None = None) -> None:
        if genes is not None:
            matrix = matrix[:, genes]
        if matrix.format == "csc":
            matrix = matrix.tocsr()
            size = matrix.data.nbytes + matrix.indices.nbytes
            logger.info(
                "Converted the counts from CSC to CSR (%s): cells are read by row. Store them as "
                "CSR to save this time: adata.X = adata.X.tocsr().",
                format_megabytes(size),
            )
        data = np.asarray(matrix.data)
        if data.dtype.char not in FAST_DTYPES or not data.dtype.isnative:
            data = data.astype(np.float32)
        self.data = data
        self.indptr = np.asarray(matrix.indptr)
        # scipy would copy the one with the smaller dtype at every call.
        self.indices = np.asarray(matrix.indices).astype(self.indptr.dtype, copy=False)
        self.n_genes = int(matrix.shape[1])

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.indptr) - 1

    @cached_property
    def is_canonical(self) -> bool:
        """Whether the gene indices of every cell are sorted and without duplicates."""
        return has_canonical_format(self.indices, self.indptr)

    @property
    def canonical(self) -> SparseColumn:
        """These counts with sorted gene indices and without duplicates; a copy unless they are."""
        # Not cached: a column that refers to itself would stay until garbage is collected.
        return self if self.is_canonical else self.sorted_copy

    @cached_property
    def sorted_copy(self) -> SparseColumn:
        """Copy with sorted gene indices, in which counts of one gene of a cell are added up."""
        from scipy import sparse

        arrays = (self.data.copy(), self.indices.copy(), self.indptr.copy())
        matrix = sparse.csr_matrix(arrays, shape=(len(self), self.n_genes))
        matrix.sum_duplicates()
        logger.info(
            "Copied the counts to sort the genes of each cell (%s). Sort them once to save this "
            "time and memory: adata.X.sum_duplicates().",
            format_megabytes(matrix.data.nbytes + matrix.indices.nbytes),
        )
        return SparseColumn(matrix)

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these indices, [cells, genes]."""
        rows = check_indices(cells, len(self))
        dense = csr_to_dense(self.data, self.indices, self.indptr, rows, self.n_genes)
        return torch.from_numpy(dense)


@final
class CategoricalColumn:
    """Codes of categories, integers from 0, [cells, columns]."""

    def __init__(self, codes: NDArray[np.int64]) -> None:
        self.codes = torch.from_numpy(np.require(codes, np.int64, ["C", "W"]))

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.codes)

    def take(self, cells: CellNumbers) -> Tensor:
        """Codes of the cells with these indices, [cells, columns]."""
        return self.codes.index_select(0, cells)


@final
class ContinuousColumn:
    """Continuous values in single precision, [cells, columns]."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        # Read-only arrays, such as columns of pandas 3, are copied; others share memory.
        self.values = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.values)

    def take(self, cells: CellNumbers) -> Tensor:
        """Values of the cells with these indices, [cells, columns]."""
        return self.values.index_select(0, cells)


@final
class ColumnRows(Generic[B]):
    """Rows that consist of columns of equal length; a batch is a NamedTuple.

    Parameters
    ----------
    columns
        Columns by their names in a batch; fields of a batch without a column keep their default.
    batch_type
        NamedTuple class of a batch.
    """

    def __init__(self, columns: Mapping[str, Column], batch_type: Callable[..., B]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Expected columns of equal length; got {lengths}.")
        self.columns = dict(columns)
        self.batch_type = batch_type

    def __len__(self) -> int:
        """Count the cells."""
        return len(next(iter(self.columns.values())))

    def take(self, cells: CellNumbers) -> B:
        """Batch of the cells with these indices, in this order; indices may repeat."""
        return self.batch_type(
            **{name: column.take(cells) for name, column in self.columns.items()}
        )

    def select_columns(self, *names: str) -> ColumnRows[Any]:
        """The same cells with some of the columns, which are the attributes of a batch."""
        return ColumnRows({name: self.columns[name] for name in names}, SimpleNamespace)


def format_megabytes(size: int) -> str:
    """Number of bytes in megabytes, such as "12.3 MB"."""
    return f"{size / 1e6:,.1f} MB"
