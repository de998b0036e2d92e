"""Companions: further cells that go along with each step, such as those whose label is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import B, Rows
from cellvae.core.seeds import make_generator
from cellvae.data.batches.shuffling import as_index_tensor
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


@final
class LabelledSampler:
    """Cells that go along with the steps of an epoch, a fixed function of seed and epoch.

    Parameters
    ----------
    cells
        Numbers of the cells.
    labels
        Label of each of them.
    batch_size
        Companions of a step; all of them go along with every step where there are fewer.
    seed
        Seed of the run.
    n_per_label
        Cells of each label that take part in an epoch, drawn anew for every epoch; None for all.
    shuffle
        Whether they come in another order every time.

    Raises
    ------
    InvalidDataError
        If there are none.
    """

    def __init__(
        self,
        cells: CellNumbers | NDArray[np.int64],
        labels: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int,
        n_per_label: int | None = None,
        shuffle: bool = True,
    ) -> None:
        self.cells = as_index_tensor(cells)
        self.labels = as_index_tensor(labels)
        if not len(self.cells):
            raise InvalidDataError("Expected at least one cell that can go along; got none.")
        self.batch_size = batch_size
        self.seed = seed
        self.n_per_label = n_per_label
        self.shuffle = shuffle

    def sample_cells(self, epoch: int) -> CellNumbers:
        """Cells that take part in an epoch."""
        if self.n_per_label is None:
            return self.cells
        stream = make_generator(self.seed, "companions", "chosen", epoch)
        mixed = torch.randperm(len(self.cells), generator=stream)
        # A stable sort leaves the cells of each label in their mixed order, so the first are drawn.
        labels, places = self.labels[mixed].sort(stable=True)
        _, sizes = labels.unique_consecutive(return_counts=True)
        rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        kept = mixed[places[rank < self.n_per_label]]
        return self.cells[kept.sort().values]

    def per_step(self, epoch: int, n_steps: int) -> Int[Tensor, "steps companions"]:
        """Companions of each step of an epoch: one pass through all of them after another."""
        cells = self.sample_cells(epoch)
        n_labelled = min(self.batch_size, len(cells))
        n_passes = -(-n_steps * n_labelled // len(cells))
        stream = make_generator(self.seed, "companions", "order", epoch)
        whole = torch.arange(len(cells))
        orders = [
            torch.randperm(len(cells), generator=stream) if self.shuffle else whole
            for _ in range(n_passes)
        ]
        places = torch.cat(orders)[: n_steps * n_labelled]
        return cells[places].view(n_steps, n_labelled)

    def split_evenly(self, n_steps: int) -> list[CellNumbers]:
        """Companions of each step where every one of them goes along once."""
        return list(self.cells.tensor_split(n_steps))


@final
class WithLabelledCells(Generic[B]):
    """Rows whose batches say how many cells at the end of a step are companions.

    Parameters
    ----------
    rows
        Where the cells are.
    n_labelled
        Companions of each step.
    """

    def __init__(self, rows: Rows[B], n_labelled: int) -> None:
        self.rows = rows
        self.n_labelled = n_labelled

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.rows)

    def take(self, cells: CellNumbers) -> B:
        """Batch of the cells with these numbers, in this order; numbers may repeat."""
        batch: B = self.rows.take(cells)._replace(  # type: ignore[attr-defined]
            n_labelled=self.n_labelled
        )
        return batch
