"""Blocks: every cell exactly once, no batch too small, the same batches for any block size."""

from __future__ import annotations

import threading
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cellvae.contracts import Rows, StepBlock
from cellvae.data.batches.blocks import EpochBlocks, make_blocks
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows, DenseColumn
from cellvae.errors import InvalidDataError, InvalidOptionError


class Batch(NamedTuple):
    """Counts and codes of a batch, and something absent."""

    counts: Tensor
    codes: Tensor
    absent: Tensor | None = None


@pytest.fixture
def rows() -> ColumnRows[Batch]:
    random = np.random.default_rng(0)
    columns = {
        "counts": DenseColumn(random.poisson(2, (101, 6)).astype(np.float32)),
        "codes": CategoricalColumn(np.arange(101)[:, None]),
    }
    return ColumnRows(columns, Batch)


def batches(blocks: list[Tensor]) -> list[list[int]]:
    return [step.tolist() for block in blocks for step in block]


SIZES = [*range(2, 40), 127, 128, 129, 130, 131, 256, 257, 259]
BATCH_SIZES = [2, 3, 4, 7, 128]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_every_cell_comes_exactly_once_and_in_order(batch_size: int) -> None:
    for n_cells, steps, smallest in product(SIZES, [1, 2, 50], [1, 3]):
        order = torch.randperm(n_cells, generator=torch.Generator().manual_seed(n_cells))
        cut_up = make_blocks(order, batch_size, steps_per_block=steps, min_batch_size=smallest)
        found = [cell for batch in batches(cut_up) for cell in batch]
        assert found == order.tolist()


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_batches_are_full_but_for_a_last_one_that_is_never_too_small(batch_size: int) -> None:
    for n_cells in SIZES:
        sizes = [len(batch) for batch in batches(make_blocks(torch.arange(n_cells), batch_size))]
        rest = n_cells % batch_size
        expected = [batch_size] * (n_cells // batch_size) + [rest] * (rest > 0)
        if 0 < rest < 3 and len(expected) > 1:
            expected[-2:] = [batch_size + rest]
        assert sizes == expected
        assert min(sizes) >= min(3, n_cells, batch_size)


def test_the_number_of_steps_per_block_does_not_change_the_batches() -> None:
    for n_cells in (300, 301, 303, 320):
        order = torch.arange(n_cells)
        expected = batches(make_blocks(order, 32))
        for steps in (2, 3, 50):
            blocks = make_blocks(order, 32, steps_per_block=steps)
            assert batches(blocks) == expected
            assert all(len(block) <= steps for block in blocks)
            assert all(block.is_contiguous() for block in blocks)


def test_the_last_batch_can_be_dropped() -> None:
    assert batches(make_blocks(torch.arange(10), 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batches(make_blocks(torch.arange(9), 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(InvalidOptionError, match="full batch of 4 cells with drop_last; got 3"):
        make_blocks(torch.arange(3), 4, drop_last=True)


def test_two_cells_make_one_batch_and_one_cell_none() -> None:
    assert batches(make_blocks(torch.tensor([8, 5]), 128)) == [[8, 5]]
    with pytest.raises(InvalidDataError, match="at least 2 cells in an epoch; got 1"):
        make_blocks(torch.tensor([8]), 128)
    with pytest.raises(InvalidDataError, match="at least 1 cells in an epoch; got 0"):
        make_blocks(torch.tensor([], dtype=torch.int64), 128, min_batch_size=1)


def test_where_nothing_is_normalised_one_cell_may_be_a_batch() -> None:
    assert batches(make_blocks(torch.tensor([8]), 128, min_batch_size=1)) == [[8]]
    assert batches(make_blocks(torch.arange(3), 1, min_batch_size=1)) == [[0], [1], [2]]
    assert batches(make_blocks(torch.arange(5), 4, min_batch_size=1)) == [[0, 1, 2, 3], [4]]


@pytest.mark.parametrize(
    ("batch_size", "kwargs", "message"),
    [
        (1, {}, "batch_size of at least 2; got 1"),
        (0, {"min_batch_size": 1}, "batch_size of at least 1; got 0"),
        (4, {"steps_per_block": 0}, "at least 1 step per block; got 0"),
    ],
)
def test_sizes_that_cut_nothing_are_refused(
    batch_size: int, kwargs: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        make_blocks(torch.arange(10), batch_size, **kwargs)  # type: ignore[arg-type]


def epoch_of(blocks: EpochBlocks[Batch], epoch: int) -> list[Batch]:
    blocks.set_epoch(epoch)
    return [block.rows.take(cells) for block in blocks for cells in block.steps]


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        assert torch.equal(batch.counts, other.counts)
        assert torch.equal(batch.codes, other.codes)
        assert batch.absent is None


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("prefetch", [0, 1, 2, 100])
def test_blocks_read_ahead_hold_the_same_batches(
    rows: ColumnRows[Batch], steps: int, prefetch: int
) -> None:
    cells = np.arange(101)[::-1]
    plain = EpochBlocks(rows, cells, 8, seed=5)
    other = EpochBlocks(rows, cells, 8, seed=5, steps_per_block=steps, prefetch=prefetch)
    for epoch in (0, 1, 0):
        assert_same(epoch_of(other, epoch), epoch_of(plain, epoch))
    assert all(len(block.rows) >= block.steps.numel() for block in other)
    assert len(list(other)) == len(other) == -(-13 // steps)
    assert other.n_steps == plain.n_steps == len(plain) == 13


def test_an_epoch_is_a_function_of_seed_and_number(rows: ColumnRows[Batch]) -> None:
    blocks = EpochBlocks(rows, torch.arange(101), 8, seed=5)
    first = epoch_of(blocks, 0)
    seen = torch.cat([batch.codes for batch in first]).flatten()
    assert torch.equal(seen.sort().values, torch.arange(101))
    assert not torch.equal(seen, torch.cat([b.codes for b in epoch_of(blocks, 1)]).flatten())
    assert_same(epoch_of(EpochBlocks(rows, torch.arange(101), 8, seed=5), 0), first)
    kept = EpochBlocks(rows, torch.arange(101), 8, seed=5, shuffle=False, min_batch_size=1)
    order = torch.cat([batch.codes for batch in epoch_of(kept, 4)]).flatten()
    assert torch.equal(order, torch.arange(101))


def test_a_block_without_prefetch_holds_the_rows_themselves(rows: ColumnRows[Batch]) -> None:
    block = next(iter(EpochBlocks(rows, torch.arange(101), 8, seed=5)))
    assert isinstance(block, StepBlock)
    assert block.rows is rows and block.steps.shape == (1, 8)


class Failing:
    """Rows that cannot be read after the first two batches."""

    def __init__(self, rows: Rows[Batch]) -> None:
        self.rows = rows
        self.threads: list[str] = []

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, cells: Tensor) -> Batch:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) > 2:
            raise OSError("the disk is gone")
        return self.rows.take(cells)


def test_an_error_while_reading_ahead_reaches_the_caller(rows: ColumnRows[Batch]) -> None:
    failing = Failing(rows)
    taken = 0
    with pytest.raises(OSError, match="the disk is gone"):
        for _ in EpochBlocks(failing, torch.arange(101), 8, seed=5, prefetch=1):
            taken += 1
    assert taken == 2
    assert all(name.startswith("cellvae-blocks") for name in failing.threads)


def test_the_thread_ends_when_the_caller_stops_early(rows: ColumnRows[Batch]) -> None:
    before = threading.active_count()
    blocks = iter(EpochBlocks(rows, torch.arange(101), 8, seed=5, prefetch=2))
    next(blocks)
    assert threading.active_count() == before + 1
    blocks.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_negative_prefetch_is_refused(rows: ColumnRows[Batch]) -> None:
    with pytest.raises(InvalidOptionError, match="prefetch of at least 0; got -1"):
        EpochBlocks(rows, torch.arange(101), 8, seed=5, prefetch=-1)
