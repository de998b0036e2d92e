"""Columns on a device: cells are gathered and made dense there."""

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
"""Types that whole counts are kept in, the smallest that holds them all."""
MAX_EXACT_FLOAT32 = 2**24
"""Whole numbers up to here are the same in single precision."""


@final
class DeviceSparseColumn:
    """Counts of a CSR matrix on a device, [cells, genes]; made dense there when taken.

    What is taken has a fixed shape, whatever the cells, and nothing waits for the device: as many
    places as the longest cell has are read for each, and those of other cells count as zero.

    Parameters
    ----------
    column
        Column in memory.
    device
        Where its values go, in the smallest types that hold them exactly.
    """

    def __init__(self, column: SparseColumn, device: torch.device) -> None:
        self.n_genes = column.n_genes
        self.longest = int(np.diff(column.indptr).max(initial=0))
        self.values = to_smallest_dtype(column.data).to(device)
        kind = torch.int16 if self.n_genes <= 2**15 else torch.int32
        self.genes = torch.from_numpy(column.indices).to(kind).to(device)
        self.starts = torch.from_numpy(column.indptr.astype(np.int64)).to(device)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.starts) - 1

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these numbers, [cells, genes]."""
        cells = cells.to(self.starts.device, non_blocking=True)
        dense = torch.zeros((len(cells), self.n_genes), device=self.starts.device)
        if not self.longest:
            return dense
        first, last = self.starts[cells].unsqueeze(-1), self.starts[cells + 1].unsqueeze(-1)
        places = first + torch.arange(self.longest, device=self.starts.device)
        own = places < last
        places = places.clamp(max=len(self.values) - 1)
        values = self.values[places].float() * own
        return dense.scatter_add_(1, self.genes[places].long(), values)


@final
class DeviceColumn:
    """Dense values on a device, [cells, columns], converted when taken."""

    def __init__(self, values: Tensor, device: torch.device, kind: torch.dtype) -> None:
        self.values = values.to(device)
        self.kind = kind

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.values)

    def take(self, cells: CellNumbers) -> Tensor:
        """Values of the cells with these numbers, [cells, columns]."""
        chosen = cells.to(self.values.device, non_blocking=True)
        return self.values.index_select(0, chosen).to(self.kind)


def to_smallest_dtype(values: NDArray[Any]) -> Tensor:
    """Values in the smallest type that holds them exactly; single precision where none does."""
    values = np.asarray(values)
    if values.size and values.dtype.kind in "fiub" and np.isfinite(values).all():
        low, high = values.min(), values.max()
        if low >= 0 and high <= MAX_EXACT_FLOAT32 and (values == np.floor(values)).all():
            kind = next(t for t in INTEGER_DTYPES if high <= torch.iinfo(t).max)
            whole = np.dtype(str(kind).removeprefix("torch."))
            return torch.from_numpy(values.astype(whole))
    return torch.from_numpy(values.astype(np.float32))


def move_column_to_device(column: Column, device: torch.device) -> Column | None:
    """The same column on a device; None for one that is not in memory."""
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
    """The same rows with all their columns on a device; None where one is not in memory."""
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
    """Most bytes that rows take on a device; None where they are not in memory."""
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
