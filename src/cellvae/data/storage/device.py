"""Columns in the memory of a device, where batches are gathered and made dense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import B, Rows
from cellvae.data.storage.column import Column
from cellvae.data.storage.memory import (
    CategoricalColumn,
    ColumnRows,
    ContinuousColumn,
    DenseColumn,
    SparseColumn,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cellvae.core.shapes import CellNumbers, Counts

INTEGER_DTYPES = (torch.uint8, torch.int16, torch.int32)
"""Dtypes for whole counts, from small to large."""
MAX_EXACT_FLOAT32 = 2**24
"""Largest integer up to which single precision is exact."""


@final
class DeviceSparseColumn:
    """Counts of a CSR matrix on a device, [cells, genes]; batches are made dense there.

    All intermediate tensors have a fixed shape, so the host never waits for the device: for each
    cell as many entries are read as the longest cell has, and those beyond its own count as zero.

    Parameters
    ----------
    column
        Column in memory.
    device
        Device; values are stored there in the smallest dtypes that hold them exactly.
    """

    def __init__(self, column: SparseColumn, device: torch.device) -> None:
        self.n_genes = column.n_genes
        self.max_length = int(np.diff(column.indptr).max(initial=0))
        self.values = to_smallest_dtype(column.data).to(device)
        index_dtype = torch.int16 if self.n_genes <= 2**15 else torch.int32
        self.genes = torch.from_numpy(column.indices).to(index_dtype).to(device)
        self.indptr = torch.from_numpy(column.indptr.astype(np.int64)).to(device)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.indptr) - 1

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these indices, [cells, genes]."""
        cells = cells.to(self.indptr.device, non_blocking=True)
        dense = torch.zeros((len(cells), self.n_genes), device=self.indptr.device)
        if not self.max_length:
            return dense
        first, last = self.indptr[cells].unsqueeze(-1), self.indptr[cells + 1].unsqueeze(-1)
        positions = first + torch.arange(self.max_length, device=self.indptr.device)
        in_cell = positions < last
        positions = positions.clamp(max=len(self.values) - 1)
        values = self.values[positions].float() * in_cell
        return dense.scatter_add_(1, self.genes[positions].long(), values)


@final
class DeviceColumn:
    """Dense values on a device, [cells, columns], whose batches are converted to `dtype`."""

    def __init__(self, values: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        self.values = values.to(device)
        self.dtype = dtype

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.values)

    def take(self, cells: CellNumbers) -> Tensor:
        """Values of the cells with these indices, [cells, columns]."""
        cells = cells.to(self.values.device, non_blocking=True)
        return self.values.index_select(0, cells).to(self.dtype)


def to_smallest_dtype(values: NDArray[Any]) -> Tensor:
    """Values in the smallest integer dtype that holds them exactly, else in single precision."""
    values = np.asarray(values)
    if values.size and values.dtype.kind in "fiub" and np.isfinite(values).all():
        low, high = values.min(), values.max()
        if low >= 0 and high <= MAX_EXACT_FLOAT32 and (values == np.floor(values)).all():
            dtype = next(t for t in INTEGER_DTYPES if high <= torch.iinfo(t).max)
            return torch.from_numpy(values.astype(str(dtype).removeprefix("torch.")))
    return torch.from_numpy(values.astype(np.float32))


def move_column_to_device(column: Column, device: torch.device) -> Column | None:
    """Copy of a column on a device; None if it is not in memory."""
    if isinstance(column, SparseColumn):
        return DeviceSparseColumn(column, device)
    if isinstance(column, DenseColumn):
        values = column.values if column.genes is None else column.values[:, column.genes.numpy()]
        return DeviceColumn(to_smallest_dtype(values), device, torch.float32)
    if isinstance(column, CategoricalColumn):
        return DeviceColumn(column.codes, device, torch.int64)
    if isinstance(column, ContinuousColumn):
        return DeviceColumn(column.values, device, torch.float32)
    return None


def move_rows_to_device(rows: Rows[B], device: torch.device) -> ColumnRows[B] | None:
    """Copy of all columns on a device; None if one of them is not in memory."""
    if not isinstance(rows, ColumnRows):
        return None
    columns = {}
    for name, column in rows.columns.items():
        moved = move_column_to_device(column, device)
        if moved is None:
            return None
        columns[name] = moved
    return ColumnRows(columns, rows.batch_type)


def max_device_bytes(rows: Rows[Any]) -> int | None:
    """Upper bound of the bytes that rows take on a device; None if they are not in memory."""
    if not isinstance(rows, ColumnRows):
        return None
    total = 0
    for column in rows.columns.values():
        if isinstance(column, SparseColumn):
            total += 4 * column.data.size + 4 * column.indices.size + 8 * column.indptr.size
        elif isinstance(column, DenseColumn):
            n_genes = column.values.shape[1] if column.genes is None else len(column.genes)
            total += 4 * len(column) * n_genes
        elif isinstance(column, CategoricalColumn | ContinuousColumn):
            values = column.codes if isinstance(column, CategoricalColumn) else column.values
            total += values.nbytes
        else:
            return None
    return total
