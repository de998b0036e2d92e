"""Companions: each in its turn, a fixed function of seed and epoch, in blocks of any size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cellvae.data.batches.blocks import EpochBlocks
from cellvae.data.batches.labelled_cells import LabelledSampler
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows
from cellvae.errors import InvalidDataError

CELLS = np.arange(100, 140)
LABELS = np.repeat([0, 1, 2], [30, 8, 2])


class Batch(NamedTuple):
    """Numbers of cells, and how many are companions."""

    number: Tensor
    n_labelled: int = 0


def companions(batch_size: int = 16, **kwargs: object) -> LabelledSampler:
    return LabelledSampler(CELLS, LABELS, batch_size, **{"seed": 3, **kwargs})  # type: ignore[arg-type]


def test_a_pass_goes_through_all_of_them_before_one_comes_again() -> None:
    found = companions().per_step(0, 10).flatten()
    for begin in range(0, 160, 40):
        assert sorted(found[begin : begin + 40].tolist()) == CELLS.tolist()
    assert not torch.equal(found[:40], found[40:80])
    assert companions(64).per_step(0, 3).shape == (3, 40)


def test_epochs_differ_and_each_is_the_same_again() -> None:
    first, again = (companions().per_step(epoch, 5) for epoch in (1, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, companions().per_step(2, 5))
    assert not torch.equal(first, companions(seed=4).per_step(1, 5))


def test_so_many_of_each_label_are_drawn_anew_for_every_epoch() -> None:
    drawn = companions(n_per_label=5)
    label = dict(zip(CELLS.tolist(), LABELS.tolist(), strict=True))
    seen: set[int] = set()
    for epoch in range(40):
        chosen = drawn.sample_cells(epoch).tolist()
        assert len(set(chosen)) == len(chosen)
        assert [sum(label[c] == kind for c in chosen) for kind in range(3)] == [5, 5, 2]
        seen |= set(chosen)
    assert seen == set(CELLS.tolist())


def test_every_cell_of_a_label_is_drawn_as_often() -> None:
    drawn = companions(n_per_label=6)
    counts = np.zeros(140)
    for epoch in range(2_000):
        counts[drawn.sample_cells(epoch).numpy()] += 1
    often = counts[100:130] / 2_000
    np.testing.assert_allclose(often, 0.2, atol=5 * np.sqrt(0.2 * 0.8 / 2_000))


@pytest.mark.parametrize("steps_per_block", [1, 3, 100])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_blocks_of_any_size_have_the_same_companions(steps_per_block: int, prefetch: int) -> None:
    rows = ColumnRows({"number": CategoricalColumn(np.arange(150)[:, None])}, Batch)

    def numbers(size: int, ahead: int) -> list[list[int]]:
        blocks = EpochBlocks(
            rows,
            np.arange(75),
            16,
            seed=0,
            steps_per_block=size,
            prefetch=ahead,
            labelled_cells=companions(),
        )
        steps = []
        for block in blocks:
            for cells in block.steps:
                batch = block.rows.take(cells)
                assert batch.n_labelled == 16
                steps.append(batch.number.flatten().tolist())
        return steps

    found = numbers(steps_per_block, prefetch)
    assert found == numbers(1, 0)
    assert sorted(n for step in found for n in step[:-16]) == list(range(75))
    assert {n for step in found for n in step[-16:]} <= set(CELLS.tolist())


def test_without_shuffling_each_goes_along_once() -> None:
    rows = ColumnRows({"number": CategoricalColumn(np.arange(150)[:, None])}, Batch)
    blocks = EpochBlocks(
        rows,
        np.arange(75),
        16,
        seed=0,
        shuffle=False,
        labelled_cells=companions(),
        min_batch_size=1,
    )
    batches = [block.rows.take(block.steps[0]) for block in blocks]
    further = [n for b in batches for n in b.number.flatten().tolist()[-b.n_labelled :]]
    assert further == CELLS.tolist()
    assert len(batches) == 5


def test_processes_share_them() -> None:
    rows = ColumnRows({"number": CategoricalColumn(np.arange(150)[:, None])}, Batch)
    whole: list[Tensor] = []
    for rank in range(2):
        blocks = EpochBlocks(rows, np.arange(64), 16, seed=0, labelled_cells=companions())
        blocks.shard(rank, 2)
        whole += [block.steps[0, -16:] for block in blocks]
    # Two processes with two steps each take four steps, one pass and a half, between them.
    counts = np.bincount(torch.cat(whole).numpy())[100:]
    assert sorted(set(counts.tolist())) == [1, 2] and counts.sum() == 64


def test_none_is_refused() -> None:
    with pytest.raises(InvalidDataError, match="at least one labelled cell"):
        LabelledSampler(CELLS[:0], LABELS[:0], 4, seed=0)
