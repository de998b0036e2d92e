"""Passes over cells: results in the order asked, each cell read once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cellvae.data.batches.batching import iter_batches, map_batches
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows
from cellvae.errors import InvalidOptionError


class Batch(NamedTuple):
    """Codes of a batch."""

    codes: Tensor


class Pair(NamedTuple):
    """Two results for each cell."""

    half: Tensor
    twice: Tensor


@pytest.fixture
def rows() -> ColumnRows[Batch]:
    return ColumnRows({"codes": CategoricalColumn(np.arange(50)[:, None])}, Batch)


CELLS = np.array([49, 3, 3, 0, 17, 21, 8])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_come_in_order_with_their_positions(
    rows: ColumnRows[Batch], batch_size: int
) -> None:
    positions = []
    for where, batch in iter_batches(rows, CELLS, batch_size):
        assert batch.codes.flatten().tolist() == CELLS[where].tolist()
        positions += range(where.start, where.stop)
    assert positions == list(range(7))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_results_are_those_of_one_call_for_all_cells(
    rows: ColumnRows[Batch], batch_size: int
) -> None:
    expected = torch.from_numpy(CELLS)
    found = map_batches(lambda b: b.codes[:, 0] * 10, rows, CELLS, batch_size)
    assert torch.equal(found, expected * 10)
    pair = map_batches(lambda b: Pair(b.codes / 2, b.codes * 2), rows, CELLS, batch_size)
    assert isinstance(pair, Pair)
    assert pair.half.dtype is torch.float32 and pair.twice.dtype is torch.int64
    assert torch.equal(pair.half.flatten(), expected / 2)
    assert torch.equal(pair.twice.flatten(), expected * 2)
    plain = map_batches(lambda b: (b.codes, b.codes), rows, torch.from_numpy(CELLS), batch_size)
    assert type(plain) is tuple and torch.equal(plain[1].flatten(), expected)


def test_the_dimension_of_the_cells_can_be_another(rows: ColumnRows[Batch]) -> None:
    samples = map_batches(lambda b: b.codes[None].expand(4, -1, 1).clone(), rows, CELLS, 3, dim=1)
    assert samples.shape == (4, 7, 1)
    assert samples[2].flatten().tolist() == CELLS.tolist()


def test_no_cells_and_no_batch_size_are_refused(rows: ColumnRows[Batch]) -> None:
    with pytest.raises(InvalidOptionError, match="at least one cell; got none"):
        map_batches(lambda b: b.codes, rows, np.array([], dtype=np.int64), 3)
    with pytest.raises(InvalidOptionError, match="batch_size of at least 1; got 0"):
        map_batches(lambda b: b.codes, rows, CELLS, 0)
