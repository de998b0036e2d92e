"""Column whose counts are taken as they are kept: without their zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, final

import numpy as np
import torch

# Not copied: what is asked is a few microseconds of compiled code for each batch.
from scipy.sparse import _sparsetools

from cellvae.contracts import B, Rows
from cellvae.data.rows.column import numbers_within
from cellvae.data.rows.densify import chosen_rows
from cellvae.data.rows.memory import ColumnRows, SparseColumn
from cellvae.entries import Entries

if TYPE_CHECKING:
    from cellvae.shapes import CellNumbers

DENSEST = 0.2
"""Share of values that are not zero above which a product of dense matrices is faster."""

R = TypeVar("R")


@final
class EntriesColumn:
    """Counts of a sparse column, taken as :class:`~cellvae.entries.Entries`."""

    def __init__(self, column: SparseColumn) -> None:
        self.column = column

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.column)

    def take(self, cells: CellNumbers) -> Any:
        """Entries of the cells with these numbers."""
        column = self.column
        rows = numbers_within(cells, len(column))
        values, genes, starts = chosen_rows(column.data, column.indices, column.starts, rows)
        return Entries(
            torch.from_numpy(values.astype(np.float32, copy=False)),
            torch.from_numpy(genes.astype(np.int32, copy=False)),
            torch.from_numpy(starts.astype(np.int64, copy=False)),
            column.n_genes,
        )


def with_entries(rows: Rows[B], name: str = "counts") -> Rows[B] | None:
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
    n_entries = int(column.starts[-1] - column.starts[0])
    if n_entries > DENSEST * len(column) * column.n_genes:
        return None
    if not _sparsetools.csr_has_canonical_format(len(column), column.starts, column.indices):
        return None
    columns: dict[str, Any] = {**rows.columns, name: EntriesColumn(column)}
    return ColumnRows(columns, rows.batch_type)
