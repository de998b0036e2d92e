"""Rows in memory whose batches are moved to a device while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, final

import torch
from torch import Tensor

from cellvae.contracts import B, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.data.storage.sparse import with_csr_counts

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


@final
class ToDevice(Generic[B]):
    """Rows that stay in memory; what is taken from them goes to a device.

    Sparse counts go there by their entries, a seventh of the bytes at 15 %, and are made dense
    there. For CUDA the way goes through memory that the device reads by itself, so that nobody
    waits for a copy.

    Parameters
    ----------
    rows
        Cells in memory, or in a file.
    device
        Where batches go.
    """

    def __init__(self, rows: Rows[B], device: torch.device) -> None:
        self.rows = with_csr_counts(rows) or rows
        self.device = device

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.rows)

    def take(self, cells: CellNumbers) -> B:
        """Batch of the cells with these numbers, on the device."""
        batch = self.rows.take(cells.cpu())
        return type(batch)(*(self.move_column(values) for values in batch))

    def move_column(self, values: Any) -> Any:
        """What a batch has of one column, on the device."""
        if isinstance(values, CSRBatch):
            own, genes, starts = (self.move_column(part) for part in values[:3])
            return CSRBatch(own, genes, starts, values.n_genes).to_dense()
        if not isinstance(values, Tensor):
            return values
        if self.device.type == "cuda" and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)
