"""Blocks of whole optimizer steps, cut from the order of the cells in an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import B, Rows, StepBlock
from cellvae.data.batches.labelled_cells import LabelledSampler, WithLabelledCells
from cellvae.data.batches.shuffling import as_index_tensor, epoch_order
from cellvae.data.storage.row_wrappers import prefetch_block
from cellvae.errors import InvalidDataError, InvalidOptionError

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers

MIN_BATCH_SIZE = 3
"""Least number of cells of a batch: batch normalisation needs 2, and 2 are very noisy."""


def make_blocks(
    order: CellNumbers,
    batch_size: int,
    *,
    steps_per_block: int = 1,
    drop_last: bool = False,
    smallest: int = MIN_BATCH_SIZE,
) -> list[Int[Tensor, "steps cells"]]:
    """Cells of each block, [steps, cells]: full batches, then the rest as a block of its own.

    The batches are the same for any number of steps per block.

    Parameters
    ----------
    order
        Cells in the order of the epoch.
    batch_size
        Cells of a batch.
    steps_per_block
        Batches of a block; the last block of full batches may have fewer.
    drop_last
        Whether the rest is left out.
    smallest
        A rest of fewer cells joins the last full batch, so no cell is left out and no batch is
        too small for batch normalisation; 1 where nothing is normalised.

    Raises
    ------
    InvalidDataError
        If there are no cells, or one cell and `smallest` is above 1.
    InvalidOptionError
        If a number is too small, or `drop_last` leaves no batch.
    """
    n_cells = len(order)
    check_sizes(n_cells, batch_size, steps_per_block, smallest)
    n_full, n_rest = divmod(n_cells, batch_size)
    if drop_last:
        if not n_full:
            raise InvalidOptionError(
                f"Expected at least one full batch of {batch_size} cells with drop_last; got "
                f"{n_cells} cells. Lower batch_size or leave out drop_last."
            )
        order, n_rest = order[: n_full * batch_size], 0
    elif n_full and 0 < n_rest < smallest:
        n_full, n_rest = n_full - 1, n_rest + batch_size
    full = order[: n_full * batch_size].view(n_full, batch_size)
    blocks = list(full.split(steps_per_block)) if n_full else []
    return [*blocks, order[n_full * batch_size :].view(1, n_rest)] if n_rest else blocks


def check_sizes(n_cells: int, batch_size: int, steps_per_block: int, smallest: int) -> None:
    """Refuse numbers that no batch can be cut with."""
    needed = min(2, smallest)
    if n_cells < max(1, needed):
        raise InvalidDataError(
            f"Expected at least {max(1, needed)} cells in an epoch; got {n_cells}."
        )
    if batch_size < max(1, needed):
        raise InvalidOptionError(
            f"Expected a batch_size of at least {max(1, needed)}; got {batch_size}."
        )
    if steps_per_block < 1:
        raise InvalidOptionError(f"Expected at least 1 step per block; got {steps_per_block}.")


@final
class EpochBlocks(Generic[B]):
    """Blocks of one epoch after another, for a loop that calls `set_epoch` in between.

    Parameters
    ----------
    rows
        Where the cells are.
    cells
        Numbers of the cells to go through.
    batch_size, steps_per_block, drop_last, smallest
        As `cut` takes them.
    seed
        Seed of the run, which the order of every epoch follows from.
    shuffle
        Whether the order changes from epoch to epoch.
    prefetch
        Number of blocks whose cells are taken ahead by a thread; 0 for none. The batches are
        the same.
    companions
        Further cells that go along with each step; None for none. Where cells are not shuffled,
        each goes along once in an epoch.
    """

    def __init__(
        self,
        rows: Rows[B],
        cells: CellNumbers | NDArray[np.int64],
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        steps_per_block: int = 1,
        drop_last: bool = False,
        smallest: int = MIN_BATCH_SIZE,
        prefetch: int = 0,
        labelled_cells: LabelledSampler | None = None,
    ) -> None:
        if prefetch < 0:
            raise InvalidOptionError(f"Expected prefetch of at least 0; got {prefetch}.")
        self.rows = rows
        self.cells = as_index_tensor(cells)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.steps_per_block = steps_per_block
        self.drop_last = drop_last
        self.smallest = smallest
        self.prefetch = prefetch
        self.labelled_cells = labelled_cells
        self.epoch = 0
        self.shard(0, 1)

    def shard(self, rank: int, world_size: int) -> None:
        """Go through one share of the cells of every epoch, where several processes take one each.

        All shares have the same number of blocks. Shuffled cells are dealt anew every epoch, and
        the few that do not divide are left out of it; without shuffling none is left out.

        Raises
        ------
        InvalidDataError
            If there are too few cells for so many shares.
        """
        if len(self.cells) < world_size:
            raise InvalidDataError(
                f"Expected at least one cell for each of {world_size} processes; got "
                f"{len(self.cells)}. Use fewer devices."
            )
        self.rank, self.world_size = rank, world_size
        sizes = [len(steps) for steps in self.shard_blocks(self.cells)]
        self.n_blocks = len(sizes)
        self.n_steps = sum(sizes)

    def shard_blocks(self, order: CellNumbers) -> list[Int[Tensor, "steps cells"]]:
        """Cells of each block of this share, for an order of all cells."""
        if self.world_size == 1:
            return self.make_blocks(order)
        if self.shuffle:
            own = len(order) // self.world_size
            return self.make_blocks(order[self.rank * own : (self.rank + 1) * own])
        share = order.tensor_split(self.world_size)[self.rank]
        largest = -(-len(order) // self.world_size)
        n_batches = min(-(-largest // self.batch_size), len(order) // self.world_size)
        return [part.view(1, -1) for part in share.tensor_split(n_batches)]

    def make_blocks(self, order: CellNumbers) -> list[Int[Tensor, "steps cells"]]:
        """Cells of each block for an order of the cells."""
        return make_blocks(
            order,
            self.batch_size,
            steps_per_block=self.steps_per_block,
            drop_last=self.drop_last,
            smallest=self.smallest,
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose blocks come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Count the blocks of an epoch."""
        return self.n_blocks

    def __iter__(self) -> Iterator[StepBlock]:
        """Go through the blocks of the epoch that is chosen when the first is asked for."""
        order = epoch_order(self.cells, self.seed, self.epoch, self.shuffle)
        steps = self.shard_blocks(order)
        blocks = (
            (StepBlock(self.rows, cells) for cells in steps)
            if self.labelled_cells is None
            else self.append_labelled_cells(steps, self.labelled_cells)
        )
        yield from prefetch(blocks, self.prefetch) if self.prefetch else blocks

    def append_labelled_cells(
        self, blocks: list[Int[Tensor, "steps cells"]], labelled_cells: LabelledSampler
    ) -> Iterator[StepBlock]:
        """Blocks whose steps have companions at their end."""
        n_steps = sum(len(steps) for steps in blocks)
        whole = n_steps * self.world_size
        every: Iterable[Tensor] = (
            labelled_cells.per_step(self.epoch, whole)[self.rank :: self.world_size]
            if self.shuffle
            else labelled_cells.split_evenly(whole)[self.rank :: self.world_size]
        )
        following = iter(every)
        for steps in blocks:
            further = [next(following) for _ in steps]
            rows = WithLabelledCells(self.rows, len(further[0]))
            yield StepBlock(rows, torch.cat([steps, torch.stack(further)], dim=1))


def prefetch(blocks: Iterable[StepBlock], n_ahead: int) -> Iterator[StepBlock]:
    """Blocks whose cells have been taken, `n_ahead` of them while the caller is at work."""
    waiting: deque[Future[StepBlock]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="cellvae-blocks")
    try:
        for block in blocks:
            waiting.append(pool.submit(prefetch_block, block))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
