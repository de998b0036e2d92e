"""Labelled cells that are appended to the batch of each step, for semi-supervised models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import B, Rows
from cellvae.core.seeds import make_generator
from cellvae.data.batches.run_order import RunOrder
from cellvae.data.batches.shuffling import as_index_tensor
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


@final
class LabelledSampler:
    """Sampler of the labelled cells of each step, a deterministic function of seed and epoch.

    Parameters
    ----------
    cells
        Indices of the labelled cells.
    labels
        Label code of each of them.
    batch_size
        Labelled cells per step; if there are fewer, all of them are in every step.
    seed
        Seed of the run.
    n_per_label
        Cells of each label in an epoch, sampled again for every epoch; None for all.
    shuffle
        Whether each pass over the labelled cells has a new random order.
    run_order
        Order of a pass for cells in files; None for cells that are read one by one.

    Raises
    ------
    InvalidDataError
        If there are no labelled cells.
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
        run_order: RunOrder | None = None,
    ) -> None:
        self.cells = as_index_tensor(cells)
        self.run_order = run_order
        self.labels = as_index_tensor(labels)
        if not len(self.cells):
            raise InvalidDataError("Expected at least one labelled cell; got none.")
        self.batch_size = batch_size
        self.seed = seed
        self.n_per_label = n_per_label
        self.shuffle = shuffle

    def sample_cells(self, epoch: int) -> CellNumbers:
        """Labelled cells that are used in an epoch."""
        if self.n_per_label is None:
            return self.cells
        stream = make_generator(self.seed, "companions", "chosen", epoch)
        order = torch.randperm(len(self.cells), generator=stream)
        # A stable sort keeps the random order within each label, so the first ones are a sample.
        labels, positions = self.labels[order].sort(stable=True)
        _, sizes = labels.unique_consecutive(return_counts=True)
        rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        sampled = order[positions[rank < self.n_per_label]]
        return self.cells[sampled.sort().values]

    def per_step(self, epoch: int, n_steps: int) -> Int[Tensor, "steps cells"]:
        """Labelled cells of each step of an epoch, from repeated passes over all of them."""
        cells = self.sample_cells(epoch)
        n_labelled = min(self.batch_size, len(cells))
        n_passes = -(-n_steps * n_labelled // len(cells))
        stream = make_generator(self.seed, "companions", "order", epoch)
        unshuffled = torch.arange(len(cells))
        orders = [
            self.permute(len(cells), stream) if self.shuffle else unshuffled
            for _ in range(n_passes)
        ]
        positions = torch.cat(orders)[: n_steps * n_labelled]
        return cells[positions].view(n_steps, n_labelled)

    def permute(self, n_cells: int, stream: torch.Generator) -> CellNumbers:
        """Positions of the labelled cells in a random order, by runs if they are in files."""
        if self.run_order is None or self.run_order.is_whole(n_cells):
            return torch.randperm(n_cells, generator=stream)
        runs = self.run_order.permute_runs(n_cells, stream)
        return self.run_order.shuffle_buffers(runs, stream)

    def split_evenly(self, n_steps: int) -> list[CellNumbers]:
        """Labelled cells of each step, each of them once in the epoch."""
        return list(self.cells.tensor_split(n_steps))


@final
class WithLabelledCells(Generic[B]):
    """Rows whose batches have the number of labelled cells at their end in `n_labelled`.

    Parameters
    ----------
    rows
        Rows of the data set.
    n_labelled
        Labelled cells of each step.
    """

    def __init__(self, rows: Rows[B], n_labelled: int) -> None:
        self.rows = rows
        self.n_labelled = n_labelled

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.rows)

    def take(self, cells: CellNumbers) -> B:
        """Batch of the cells with these indices, in this order; indices may repeat."""
        batch: B = self.rows.take(cells)._replace(  # type: ignore[attr-defined]
            n_labelled=self.n_labelled
        )
        return batch
