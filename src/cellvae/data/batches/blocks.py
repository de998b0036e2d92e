"""Step blocks: the cells of an epoch, grouped into batches and into blocks of several steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, final

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import B, Rows, StepBlock
from cellvae.data.batches.labelled_cells import LabelledSampler, WithLabelledCells
from cellvae.data.batches.read_ahead import Buffer, keep_rows, read_buffers
from cellvae.data.batches.reader_thread import make_reader_pool
from cellvae.data.batches.run_order import RunOrder, run_epoch_order
from cellvae.data.batches.shuffling import as_index_tensor, epoch_order
from cellvae.data.storage.disk.loaded_rows import load_rows
from cellvae.data.storage.row_wrappers import prefetch_block
from cellvae.errors import InvalidDataError, InvalidOptionError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cellvae.core.shapes import CellNumbers

MIN_BATCH_SIZE = 3
"""Minimum cells per batch: batch normalisation needs 2, and 2 give very noisy statistics."""


def make_blocks(
    order: CellNumbers,
    batch_size: int,
    *,
    steps_per_block: int = 1,
    drop_last: bool = False,
    min_batch_size: int = MIN_BATCH_SIZE,
) -> list[Int[Tensor, "steps cells"]]:
    """Cells of each block, [steps, cells]: full batches, then a block with the incomplete batch.

    The batches are the same for any number of steps per block.

    Parameters
    ----------
    order
        Cells in the order of the epoch.
    batch_size
        Cells per batch.
    steps_per_block
        Batches per block; the last block of full batches may have fewer.
    drop_last
        Whether the incomplete batch is left out.
    min_batch_size
        An incomplete batch of fewer cells is merged into the last full batch, so that no cell is
        left out and no batch is too small for batch normalisation; 1 for a network without it.

    Raises
    ------
    InvalidDataError
        If there are no cells, or one cell and `min_batch_size` is above 1.
    InvalidOptionError
        If a number is too small, or `drop_last` leaves no batch.
    """
    n_cells = len(order)
    check_sizes(n_cells, batch_size, steps_per_block, min_batch_size)
    n_full, n_rest = divmod(n_cells, batch_size)
    if drop_last:
        if not n_full:
            raise InvalidOptionError(
                f"Expected at least one full batch of {batch_size} cells with drop_last; got "
                f"{n_cells} cells. Lower batch_size or leave out drop_last."
            )
        order, n_rest = order[: n_full * batch_size], 0
    elif n_full and 0 < n_rest < min_batch_size:
        n_full, n_rest = n_full - 1, n_rest + batch_size
    full = order[: n_full * batch_size].view(n_full, batch_size)
    blocks = list(full.split(steps_per_block)) if n_full else []
    return [*blocks, order[n_full * batch_size :].view(1, n_rest)] if n_rest else blocks


def check_sizes(n_cells: int, batch_size: int, steps_per_block: int, min_batch_size: int) -> None:
    """Raise if there are too few cells, or the batch size or steps per block are too small."""
    needed = min(2, min_batch_size)
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
    """Iterable over the step blocks of an epoch; `set_epoch` selects the epoch.

    Parameters
    ----------
    rows
        Rows of the data set.
    cells
        Indices of the training cells.
    batch_size, steps_per_block, drop_last, min_batch_size
        As in :func:`make_blocks`.
    seed
        Seed of the run, which determines the order of every epoch.
    shuffle
        Whether every epoch has a new random order.
    prefetch
        Number of blocks that a thread reads ahead; 0 for none. The batches are the same.
    labelled_cells
        Sampler of labelled cells that are appended to each step; None for none. Without
        shuffling, each labelled cell occurs once in an epoch.
    run_order
        Order of cells in files, which are read into memory a buffer at a time, the next one by a
        thread while the caller computes; cells that fit into one buffer are read once, and in the
        order of cells in memory. None for cells that are read one by one.

    Attributes
    ----------
    place
        Function of the rows of a buffer in memory: the rows that steps read.
    min_part_size
        Least number of cells that a process of several has of a batch, `min_batch_size` unless it
        is set; a batch of fewer cells of all is merged into the one before it.
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
        min_batch_size: int = MIN_BATCH_SIZE,
        prefetch: int = 0,
        labelled_cells: LabelledSampler | None = None,
        run_order: RunOrder | None = None,
    ) -> None:
        if prefetch < 0:
            raise InvalidOptionError(f"Expected prefetch of at least 0; got {prefetch}.")
        self.rows = rows
        self.cells = as_index_tensor(cells)
        self.run_order = run_order
        self.place: Callable[[Rows[B]], Rows[B]] = keep_rows
        self.buffer: Buffer | None = None
        self.reader: Generator[StepBlock] | None = None
        if run_order is not None and not run_order.is_whole(len(self.cells)):
            self.cells = self.cells.sort().values
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.steps_per_block = steps_per_block
        self.drop_last = drop_last
        self.min_batch_size = self.min_part_size = min_batch_size
        self.prefetch = prefetch
        self.labelled_cells = labelled_cells
        self.epoch = 0
        self.shard(0, 1)

    def shard(self, rank: int, world_size: int) -> None:
        """Restrict every step to the cells of one process of a distributed run.

        The batches are those of a run in one process, and each process has a part of every batch;
        parts differ by one cell at most. `batch_size` is that of all processes together. Cells in
        files are distributed by runs of rows. Cells that are not shuffled are in consecutive parts.

        Raises
        ------
        InvalidDataError
            If there are fewer cells than the processes need.
        InvalidOptionError
            If a batch has too few cells for the processes.
        """
        each = min(2, self.min_part_size)
        needed = each * world_size
        if len(self.cells) < needed:
            at_least = "one cell" if each == 1 else "two cells"
            raise InvalidDataError(
                f"Expected at least {at_least} for each of {world_size} processes; got "
                f"{len(self.cells)}. Use fewer devices."
            )
        if world_size > 1 and self.batch_size < needed:
            raise InvalidOptionError(
                f"Expected batch_size to be at least {needed}, since the cells of a batch are "
                f"distributed over {world_size} processes; got {self.batch_size}. Use a larger "
                "batch or fewer devices, or give batch_size_per_device."
            )
        self.rank, self.world_size = rank, world_size
        self.buffer = None
        blocks = self.shard_blocks(self.cells)
        if self.reads_runs:
            blocks = self.shard_runs(self.cells.tensor_split(world_size)[rank])
        self.n_blocks = len(blocks)
        self.n_steps = sum(len(steps) for steps in blocks)
        self.shares = self.shares_of_steps(blocks)

    @property
    def reads_runs(self) -> bool:
        """Whether cells are read in runs from files that do not fit into one buffer."""
        runs = self.run_order
        return self.shuffle and runs is not None and not runs.is_whole(len(self.cells))

    def shares_of_steps(self, blocks: list[Int[Tensor, "steps cells"]]) -> list[float]:
        """Cells of this process in each step, as a fraction of the mean over all processes.

        Gradients are averaged over processes; with this weight of its loss, each cell has the
        same influence on them. Empty if all fractions are 1.
        """
        n_left = len(self.cells) % self.world_size
        own = [steps.shape[1] for steps in blocks for _ in steps]
        if self.world_size == 1 or not self.shuffle:
            return []
        if self.reads_runs:
            total = [self.own_batch_size * self.world_size] * len(own)
            rest = own[-1] - (self.rank < n_left and not self.drop_last)
            total[-1] = rest * self.world_size + (0 if self.drop_last else n_left)
        else:
            whole = self.make_blocks(self.cells)
            total = [steps.shape[1] for steps in whole for _ in steps]
        shares = [n * self.world_size / all_n for n, all_n in zip(own, total, strict=True)]
        return [] if all(share == 1.0 for share in shares) else shares

    def shard_blocks(self, order: CellNumbers) -> list[Int[Tensor, "steps cells"]]:
        """Cells of each block of this process, for an order of all cells."""
        if self.world_size == 1:
            return self.make_blocks(order)
        if self.shuffle:
            return [self.own_part(steps) for steps in self.make_blocks(order)]
        own = order.tensor_split(self.world_size)[self.rank]
        largest = -(-len(order) // self.world_size)
        n_batches = min(-(-largest // self.own_batch_size), len(order) // self.world_size)
        return [part.view(1, -1) for part in own.tensor_split(n_batches)]

    def shard_runs(self, own: CellNumbers) -> list[Int[Tensor, "steps cells"]]:
        """Cells of each block, for the cells of this process, which are read in runs.

        All processes have as many steps; one more cell than others have is in the last.
        """
        if self.world_size == 1:
            return self.make_blocks(own)
        n_each = len(self.cells) // self.world_size
        blocks = make_blocks(
            own[:n_each],
            self.own_batch_size,
            drop_last=self.drop_last,
            min_batch_size=max(self.min_part_size, -(-self.min_batch_size // self.world_size)),
        )
        if len(own) > n_each and not self.drop_last:
            blocks[-1] = torch.cat([blocks[-1], own[n_each:].view(1, -1)], dim=1)
        return blocks

    @property
    def own_batch_size(self) -> int:
        """Cells per step of this process, rounded down."""
        return self.batch_size // self.world_size

    def own_part(self, steps: Int[Tensor, "steps cells"]) -> Int[Tensor, "steps part"]:
        """Cells of this process among those of each step of a block."""
        return steps.tensor_split(self.world_size, dim=1)[self.rank].contiguous()

    def make_blocks(self, order: CellNumbers) -> list[Int[Tensor, "steps cells"]]:
        """Cells of each block for an order of the cells, those of all processes together."""
        return make_blocks(
            order,
            self.batch_size,
            steps_per_block=self.steps_per_block,
            drop_last=self.drop_last,
            min_batch_size=max(self.min_batch_size, self.min_part_size * self.world_size),
        )

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Count the blocks of an epoch."""
        return self.n_blocks

    def __iter__(self) -> Iterator[StepBlock]:
        """Blocks of the epoch that is selected when iteration starts."""
        steps = self.steps_of_epoch()
        blocks = (
            (StepBlock(self.rows, cells) for cells in steps)
            if self.labelled_cells is None
            else self.append_labelled_cells(steps, self.labelled_cells)
        )
        if self.run_order is None:
            yield from prefetch(blocks, self.prefetch) if self.prefetch else blocks
        elif self.run_order.is_whole(len(self.cells)):
            buffer = self.read_buffer()
            yield from map(buffer.replace_rows, blocks)
        else:
            self.reader = read_buffers(blocks, self.run_order.buffer_size, self.place)
            yield from self.reader

    def stop_reading(self) -> None:
        """End the thread that reads files, if an epoch was left before its end."""
        if self.reader is not None:
            self.reader.close()

    def read_buffer(self) -> Buffer:
        """All cells of the epochs, read from files once; they fit into one buffer."""
        if self.buffer is None:
            labelled = self.cells[:0] if self.labelled_cells is None else self.labelled_cells.cells
            cells = torch.cat([self.cells, labelled]).unique()
            self.buffer = Buffer(self.place(load_rows(self.rows, cells)), cells)
        return self.buffer

    def steps_of_epoch(self) -> list[Int[Tensor, "steps cells"]]:
        """Cells of each block of this process in the selected epoch, without labelled cells."""
        if self.run_order is None or not self.reads_runs:
            order = epoch_order(self.cells, self.seed, self.epoch, self.shuffle)
            return self.shard_blocks(order)
        return self.shard_runs(
            run_epoch_order(
                self.cells,
                self.run_order,
                self.seed,
                self.epoch,
                rank=self.rank,
                world_size=self.world_size,
            )
        )

    def append_labelled_cells(
        self, blocks: list[Int[Tensor, "steps cells"]], labelled_cells: LabelledSampler
    ) -> Iterator[StepBlock]:
        """Blocks with labelled cells appended to each step."""
        n_steps = sum(len(steps) for steps in blocks)
        labelled: Iterable[Tensor]
        if self.shuffle:
            labelled = labelled_cells.per_step(self.epoch, n_steps)
            if labelled.shape[1] >= self.world_size:
                labelled = self.own_part(labelled)
            else:  # fewer labelled cells than processes
                labelled = labelled_cells.per_step(self.epoch, n_steps * self.world_size)
                labelled = labelled[self.rank :: self.world_size]
        else:
            parts = labelled_cells.split_evenly(n_steps * self.world_size)
            labelled = parts[self.rank :: self.world_size]
        remaining = iter(labelled)
        for steps in blocks:
            appended = [next(remaining) for _ in steps]
            rows = WithLabelledCells(self.rows, len(appended[0]))
            yield StepBlock(rows, torch.cat([steps, torch.stack(appended)], dim=1))


def prefetch(blocks: Iterable[StepBlock], n_ahead: int) -> Iterator[StepBlock]:
    """Blocks whose cells have been read, up to `n_ahead` of them while the caller computes."""
    pending: deque[Future[StepBlock]] = deque()
    pool = make_reader_pool("cellvae-blocks")
    try:
        for block in blocks:
            pending.append(pool.submit(prefetch_block, block))
            if len(pending) > n_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
