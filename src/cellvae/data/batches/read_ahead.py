"""Buffers of cells in files, read by a thread while the caller computes with the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from jaxtyping import Int
from torch import Tensor

from cellvae.contracts import B, Rows, StepBlock
from cellvae.data.batches.batching import iter_batches
from cellvae.data.batches.labelled_cells import WithLabelledCells
from cellvae.data.batches.mixing import max_buffer_size
from cellvae.data.batches.reader_thread import make_reader_pool
from cellvae.data.storage.disk.loaded_rows import load_rows

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cellvae.core.shapes import CellNumbers


def keep_rows(rows: Rows[B]) -> Rows[B]:
    """Return the rows themselves."""
    return rows


def read_buffers(
    blocks: Iterable[StepBlock], buffer_size: int, place: Callable[[Rows[B]], Rows[B]]
) -> Generator[StepBlock]:
    """Blocks of the same steps, whose cells have been read into memory.

    Consecutive blocks of up to `buffer_size` cells are one buffer. At most two buffers are in
    memory: that of the caller, and the next one. An error of the thread is raised in the caller;
    if the caller stops early, as after Ctrl-C, the thread stops at its next read.

    Parameters
    ----------
    blocks
        Blocks whose rows are read from files.
    buffer_size
        Cells of a buffer; a block of more cells is a buffer of its own.
    place
        Function of the rows of a buffer in memory: the rows that the blocks have.
    """
    stopped = Event()
    pool = make_reader_pool("cellvae-reader")

    def read(group: list[StepBlock]) -> list[StepBlock]:
        return load_blocks(group, place, stopped)

    pending: Future[list[StepBlock]] | None = None
    try:
        for group in group_blocks(blocks, buffer_size):
            following = pool.submit(read, group)
            if pending is not None:
                yield from pending.result()
            pending = following
        if pending is not None:
            yield from pending.result()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def iter_read_batches(
    rows: Rows[B],
    cells: CellNumbers,
    batch_size: int,
    place: Callable[[Rows[B]], Rows[B]] = keep_rows,
) -> Generator[tuple[slice, B]]:
    """Batches as of :func:`iter_batches`; cells in files are read ahead, a buffer at a time.

    Parameters
    ----------
    rows
        Cells in memory or in files.
    cells
        Indices of the cells; they may repeat.
    batch_size
        Cells per batch.
    place
        Function of rows in memory: the rows that batches are taken from.
    """
    buffer_size = max_buffer_size(rows, batch_size)
    if buffer_size is None:
        yield from iter_batches(place(rows), cells, batch_size)
        return
    blocks = (StepBlock(rows, part.view(1, -1)) for part in cells.split(batch_size))
    first = 0
    for block in read_buffers(blocks, buffer_size, place):
        batch = block.rows.take(block.steps[0])
        positions = slice(first, first + block.steps.shape[1])
        del block  # with its buffer, before the one after the next is read
        yield positions, batch
        first = positions.stop


def group_blocks(blocks: Iterable[StepBlock], buffer_size: int) -> Iterator[list[StepBlock]]:
    """Consecutive blocks of up to `buffer_size` training cells together."""
    group: list[StepBlock] = []
    n_cells = 0
    for block in blocks:
        n_steps, width = block.steps.shape
        size = n_steps * (width - getattr(block.rows, "n_labelled", 0))
        if group and n_cells + size > buffer_size:
            yield group
            group, n_cells = [], 0
        group.append(block)
        n_cells += size
    if group:
        yield group


def load_blocks(
    group: list[StepBlock], place: Callable[[Rows[B]], Rows[B]], stopped: Event
) -> list[StepBlock]:
    """Blocks with rows in memory, which are read once for all of them."""
    cells = torch.cat([block.steps.reshape(-1) for block in group]).unique()
    first = group[0].rows
    source = first.rows if isinstance(first, WithLabelledCells) else first
    buffer = Buffer(place(load_rows(source, cells, stopped)), cells)
    return [buffer.replace_rows(block) for block in group]


@final
class Buffer(NamedTuple):
    """Some cells in memory."""

    rows: Rows[Any]
    """Rows, whose indices are positions in `cells`."""
    cells: Tensor
    """Indices of the cells, [cells], which increase strictly."""

    def replace_rows(self, block: StepBlock) -> StepBlock:
        """Block of the same cells whose rows are those of the buffer."""
        steps: Int[Tensor, "steps cells"] = torch.searchsorted(self.cells, block.steps)
        own = block.rows
        if isinstance(own, WithLabelledCells):
            return StepBlock(WithLabelledCells(self.rows, own.n_labelled), steps)
        return StepBlock(self.rows, steps)
