"""Column whose counts are taken as they are kept: without their zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from cellvae.contracts import B, Module, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.data.storage.column import check_indices
from cellvae.data.storage.memory import ColumnRows, SparseColumn
from cellvae.data.storage.sparsetools import csr_take
from cellvae.kernels import use_compiled

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers

MAX_DENSITY = 0.2
"""Share of values that are not zero above which a product of dense matrices is faster."""


@final
class CSRColumn:
    """Counts of a sparse column, taken as :class:`~cellvae.core.csr_batch.Entries`."""

    def __init__(self, column: SparseColumn) -> None:
        self.column = column

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.column)

    def take(self, cells: CellNumbers) -> Any:
        """Entries of the cells with these numbers."""
        column = self.column
        rows = check_indices(cells, len(column))
        values, genes, starts = csr_take(column.data, column.indices, column.indptr, rows)
        return CSRBatch(
            torch.from_numpy(values.astype(np.float32, copy=False)),
            torch.from_numpy(genes.astype(np.int32, copy=False)),
            torch.from_numpy(starts.astype(np.int64, copy=False)),
            column.n_genes,
        )


def with_csr_counts(rows: Rows[B], name: str = "counts") -> Rows[B] | None:
    """The same rows, with the entries of a column in place of dense values; None if not sparse.

    Parameters
    ----------
    rows
        Cells in memory.
    name
        Column; its genes have to be in order, each at most once for every cell.
    """
    if not isinstance(rows, ColumnRows):
        return None
    column = rows.columns.get(name)
    if not isinstance(column, SparseColumn) or not len(column):
        return None
    n_entries = int(column.indptr[-1] - column.indptr[0])
    if n_entries > MAX_DENSITY * len(column) * column.n_genes:
        return None
    if not column.is_canonical:
        return None
    columns: dict[str, Any] = {**rows.columns, name: CSRColumn(column)}
    return ColumnRows(columns, rows.batch_type)


def sparse_rows_for(module: Module[Any], rows: Rows[B]) -> Rows[B] | None:
    """The same rows by their entries, where a module reads these; None where it does not.

    It does where its own class says so (`accepts_sparse`), the counts are sparse in memory, and its
    weights are of single precision on a processor for which kernels are compiled.
    """
    if "accepts_sparse" not in vars(type(module)) or not module.accepts_sparse:
        return None
    weight = next(module.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    sparse = with_csr_counts(rows)
    if sparse is None:
        return None
    counts = sparse.take(torch.zeros(1, dtype=torch.int64)).counts  # type: ignore[attr-defined]
    return sparse if use_compiled(counts) and use_compiled(counts, "sparse_linear") else None
