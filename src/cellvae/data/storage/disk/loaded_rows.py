"""Some cells of rows in files, read into memory in one pass over the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from scipy import sparse
from torch import Tensor

from cellvae.contracts import B, Rows
from cellvae.data.storage.column import Column
from cellvae.data.storage.disk.backed_column import BackedColumn
from cellvae.data.storage.disk.stored_reader import StoredReader, read_csr
from cellvae.data.storage.matrix_files.csr_rows import CSRRows, concatenate_rows
from cellvae.data.storage.memory import ColumnRows, SparseColumn
from cellvae.errors import TrainingError

if TYPE_CHECKING:
    from threading import Event

    from cellvae.core.shapes import CellNumbers

CELLS_PER_READ = 2**12
"""Cells between two looks at whether the reader is to stop."""


@final
class SelectedColumn:
    """Some cells of a column in memory; an index is the position among these cells."""

    def __init__(self, column: Column, cells: CellNumbers) -> None:
        self.column = column
        self.cells = cells

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.cells)

    def take(self, cells: CellNumbers) -> Tensor:
        """Values of the cells at these positions, [cells, values]."""
        return self.column.take(self.cells[cells.cpu()])


def stored_reader(rows: Any) -> StoredReader | None:
    """Reader of the counts of rows in files; None for rows whose cells are read one by one."""
    for column in rows.columns.values() if isinstance(rows, ColumnRows) else ():
        if isinstance(column, BackedColumn) and isinstance(column.reader, StoredReader):
            return column.reader
    return None


def load_rows(rows: Rows[B], cells: CellNumbers, stopped: Event | None = None) -> ColumnRows[B]:
    """Rows of some cells, with their counts in memory.

    Parameters
    ----------
    rows
        Rows in files.
    cells
        Indices, which increase strictly; an index of the result is the position among them.
    stopped
        Set by another thread if the result is not needed any more.

    Raises
    ------
    InvalidDataError
        If a file cannot be read, or is not what it was when it was opened.
    TrainingError
        If it was stopped.
    """
    if not isinstance(rows, ColumnRows):
        raise TypeError(f"Expected rows of columns; got {type(rows).__name__}.")
    columns: dict[str, Any] = {}
    readers: dict[str, StoredReader] = {}
    for name, column in rows.columns.items():
        if isinstance(column, BackedColumn) and isinstance(column.reader, StoredReader):
            readers[name] = column.reader
        columns[name] = SelectedColumn(column, cells)
    for names in group_readers(readers):
        loaded = load_columns([readers[name] for name in names], cells, stopped)
        columns |= dict(zip(names, loaded, strict=True))
    return ColumnRows(columns, rows.batch_type)


def group_readers(readers: Mapping[str, StoredReader]) -> list[list[str]]:
    """Names of readers, those together that have the same cells of the same files."""
    groups: list[list[str]] = []
    for name, reader in readers.items():
        shared = (group for group in groups if reader.shares_cells(readers[group[0]]))
        group = next(shared, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def load_columns(
    readers: Sequence[StoredReader], cells: CellNumbers, stopped: Event | None
) -> list[SparseColumn]:
    """Counts of some cells in memory, for each of the readers, which share cells."""
    parts: list[list[CSRRows]] = [[] for _ in readers]
    for part in cells.split(CELLS_PER_READ):
        if stopped is not None and stopped.is_set():
            raise TrainingError("The reader of cells was stopped.")
        for rows, read in zip(parts, read_csr(readers, part.numpy()), strict=True):
            values = read.data.astype(np.float32, copy=False)  # what a model reads
            rows.append(read._replace(data=values))
    columns = []
    for reader, rows in zip(readers, parts, strict=True):
        whole = concatenate_rows(rows)
        rows.clear()
        shape = (whole.n_cells, reader.n_genes)
        matrix = sparse.csr_matrix((whole.data, whole.indices, whole.indptr), shape=shape)
        columns.append(SparseColumn(matrix))
    return columns
