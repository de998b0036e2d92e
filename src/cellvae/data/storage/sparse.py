"""Batches of sparse counts in CSR form, and the conditions for training on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch

from cellvae.contracts import B, Module, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.device_kind import is_cpu
from cellvae.data.storage.column import check_indices
from cellvae.data.storage.memory import ColumnRows, SparseColumn
from cellvae.data.storage.sparsetools import csr_take
from cellvae.kernels import use_compiled

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers

MAX_DENSITY = 0.2
"""Fraction of nonzero values above which dense matrix products are faster."""


@final
class CSRColumn:
    """Counts of a sparse column whose batches are :class:`~cellvae.core.csr_batch.CSRBatch`."""

    def __init__(self, column: SparseColumn) -> None:
        self.column = column

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.column)

    def take(self, cells: CellNumbers) -> Any:
        """Counts of the cells with these indices, as a `CSRBatch`."""
        column = self.column
        rows = check_indices(cells, len(column))
        data, genes, indptr = csr_take(column.data, column.indices, column.indptr, rows)
        return CSRBatch.from_numpy(data, genes, indptr, column.n_genes)


def with_csr_column(rows: Rows[B], name: str = "counts") -> Rows[B] | None:
    """Rows whose batches have one column in CSR form; None if it is not sparse enough.

    Parameters
    ----------
    rows
        Cells in memory.
    name
        Column; where gene indices are not sorted or not unique, a copy of it is.
    """
    if not isinstance(rows, ColumnRows):
        return None
    column = rows.columns.get(name)
    if not isinstance(column, SparseColumn) or not len(column):
        return None
    n_entries = int(column.indptr[-1] - column.indptr[0])
    if n_entries > MAX_DENSITY * len(column) * column.n_genes:
        return None
    columns: dict[str, Any] = {**rows.columns, name: CSRColumn(column.canonical)}
    return ColumnRows(columns, rows.batch_type)


def with_csr_columns(rows: Rows[B]) -> Rows[B]:
    """Rows whose batches have all columns in CSR form that are sparse enough."""
    for name in rows.columns if isinstance(rows, ColumnRows) else ():
        rows = with_csr_column(rows, name) or rows
    return rows


def sparse_rows_for(module: Module[Any], rows: Rows[B]) -> Rows[B] | None:
    """Rows with counts in CSR form, if a module accepts them; otherwise None.

    It does if its own class (not a parent) sets `accepts_sparse`, the counts are sparse and in
    memory, and its weights are of single precision on a CPU with compiled kernels.
    """
    if not accepts_sparse_rows(module):
        return None
    csr_rows: Rows[B] | None = None
    for name in module.sparse_fields:
        with_column = with_csr_column(rows if csr_rows is None else csr_rows, name)
        if with_column is None:
            continue
        values = getattr(with_column.take(torch.zeros(1, dtype=torch.int64)), name)
        if use_compiled(values) and use_compiled(values, "sparse_linear"):
            csr_rows = with_column
    return csr_rows


def accepts_sparse_rows(module: Module[Any]) -> bool:
    """Whether a module reads counts in CSR form: its class does, in single precision on a CPU."""
    if "accepts_sparse" not in vars(type(module)) or not module.accepts_sparse:
        return False
    weight = next(module.parameters())
    return is_cpu(weight.device) and weight.dtype == torch.float32
