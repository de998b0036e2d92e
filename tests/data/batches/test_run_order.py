"""Order of cells in files: every cell once, by runs, and the same for the same arguments."""

import numpy as np
import pytest
import torch

from cellvae.data.batches.mixing import OrderPlanner, mixing_entropy
from cellvae.data.batches.run_order import RunOrder, run_epoch_order
from cellvae.errors import InvalidOptionError, TrainingWarning

ORDER = RunOrder(run_length=8, buffer_size=64)


@pytest.mark.parametrize("n_cells", [1, 7, 8, 9, 500, 1001])
def test_an_epoch_has_every_cell_once(n_cells: int) -> None:
    cells = torch.arange(n_cells) * 3 + 1
    for epoch in range(3):
        order = run_epoch_order(cells, ORDER, 5, epoch)
        assert torch.equal(order.sort().values, cells)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    cells = torch.arange(1000)
    first = run_epoch_order(cells, ORDER, 5, 1)
    run_epoch_order(cells, ORDER, 6, 1)
    torch.rand(7)
    assert torch.equal(first, run_epoch_order(cells, ORDER, 5, 1))
    assert not torch.equal(first, run_epoch_order(cells, ORDER, 5, 2))
    assert not torch.equal(first, run_epoch_order(cells, ORDER, 6, 1))


def test_a_buffer_is_few_runs_of_consecutive_cells() -> None:
    order = run_epoch_order(torch.arange(10_000), ORDER, 0, 0)
    for part in order.split(ORDER.buffer_size):
        gaps = part.sort().values.diff()
        # Runs at either end of a buffer may be cut, and the first of all may be short.
        assert int((gaps > 1).sum()) <= ORDER.buffer_size // ORDER.run_length + 1
    # Within a buffer cells are shuffled.
    assert int((order.diff() == 1).sum()) < 500


def test_where_runs_start_differs_between_epochs() -> None:
    starts = set()
    for epoch in range(20):
        runs = ORDER.permute_runs(1000, torch.Generator().manual_seed(epoch))
        breaks = torch.cat([torch.tensor([True]), runs.diff() != 1])
        starts.add(int(runs[breaks][runs[breaks] > 0][0]) % 8)
    assert len(starts) > 3


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_read_different_cells_and_together_all(world_size: int) -> None:
    cells = torch.arange(1000)
    parts = [
        run_epoch_order(cells, ORDER, 0, 4, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(part) - 1000 // world_size for part in parts} <= {0, 1}
    assert torch.equal(torch.cat(parts).sort().values, cells)


def brute_force_entropy(codes: np.ndarray, batch_size: int) -> float:
    found = []
    for start in range(0, len(codes) - batch_size + 1, batch_size):
        counts = np.unique(codes[start : start + batch_size], return_counts=True)[1]
        fractions = counts / counts.sum()
        found.append(-(fractions * np.log(fractions)).sum())
    return float(np.mean(found))


def test_mixing_entropy_is_that_of_the_composition_of_batches() -> None:
    codes = np.repeat(np.arange(10), 256)  # sorted by sample
    settings = {"run_length": 32, "buffer_size": 256, "batch_size": 64}
    order = run_epoch_order(
        torch.arange(len(codes)), RunOrder(run_length=32, buffer_size=256), 0, 0
    )
    measured = mixing_entropy(codes.astype(str), **settings)
    full = [brute_force_entropy(np.random.default_rng(i).permutation(codes), 64) for i in range(20)]
    expected = brute_force_entropy(codes[order.numpy()], 64) / np.mean(full)
    assert measured == pytest.approx(expected, abs=0.02)
    assert measured < 0.9


def test_mixing_entropy_is_one_for_a_full_shuffle_and_zero_for_none() -> None:
    codes = np.repeat(np.arange(4), 256)
    assert mixing_entropy(codes, run_length=1, buffer_size=1024) == pytest.approx(1, abs=0.01)
    long = np.repeat(np.arange(4), 8192)
    assert mixing_entropy(long, run_length=8192, buffer_size=128) < 0.05
    assert mixing_entropy(np.zeros(100), run_length=10, buffer_size=10) == 1


def test_longer_runs_mix_less() -> None:
    codes = np.repeat(np.arange(10), 4096)
    values = [
        mixing_entropy(codes, run_length=length, buffer_size=8192) for length in (16, 256, 2048)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.97 > values[1] > values[2]


@pytest.mark.parametrize("n_samples", [10, 50])
def test_default_order_mixes_cells_that_are_sorted_by_sample(n_samples: int) -> None:
    codes = np.repeat(np.arange(n_samples), 100_000 // n_samples)
    order = OrderPlanner(codes, 2000, 20_000).choose(128)
    assert order.buffer_size == 19_200  # three times fifty batches of 128
    entropy = mixing_entropy(
        codes, run_length=order.run_length, buffer_size=order.buffer_size, seed=3
    )
    assert entropy > 0.965
    assert order.run_length > 20


def test_too_little_memory_for_mixing_is_warned_about() -> None:
    codes = np.repeat(np.arange(64), 2000)
    with pytest.warns(TrainingWarning, match="Write the cells to files in a random order"):
        OrderPlanner(codes, 1, 64).choose(64)


@pytest.mark.parametrize("name", ["run_length", "buffer_size", "batch_size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    sizes = {"run_length": 2, "buffer_size": 4, "batch_size": 2} | {name: 0}
    with pytest.raises(InvalidOptionError, match=f"Expected a {name} of at least 1"):
        mixing_entropy(np.arange(10), **sizes)
    with pytest.raises(InvalidOptionError, match="at least one cell"):
        mixing_entropy([], run_length=1, buffer_size=1)
