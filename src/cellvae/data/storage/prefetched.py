"""Rows of a batch that has been taken already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, final

import torch
from torch import Tensor

from cellvae.contracts import B, StepBlock

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


@final
class PrefetchedBatch(Generic[B]):
    """Rows whose cells are those of one batch, numbered by their position in it."""

    def __init__(self, batch: B, n_cells: int) -> None:
        self.batch = batch
        self.n_cells = n_cells

    def __len__(self) -> int:
        """Count the cells."""
        return self.n_cells

    def take(self, cells: CellNumbers) -> B:
        """Batch of the cells at these positions; the batch itself if that is all of them."""
        whole = torch.arange(self.n_cells, device=cells.device)
        if len(cells) == self.n_cells and torch.equal(cells, whole):
            return self.batch
        chosen = (x.index_select(0, cells) if isinstance(x, Tensor) else x for x in self.batch)
        return type(self.batch)(*chosen)


def prefetch_block(block: StepBlock) -> StepBlock:
    """Same block with its cells taken, so that its steps read from memory."""
    cells = block.steps.reshape(-1)
    places = torch.arange(len(cells)).view(block.steps.shape)
    return StepBlock(PrefetchedBatch(block.rows.take(cells), len(cells)), places)
