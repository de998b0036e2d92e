"""How well batches of cells from files are mixed, and the order that mixes them enough."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cellvae.contracts import Rows
from cellvae.core.log import warn
from cellvae.core.seeds import make_generator
from cellvae.data.batches.run_order import RunOrder, run_epoch_order
from cellvae.data.storage.disk.loaded_rows import stored_reader
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows
from cellvae.errors import InvalidOptionError, TrainingWarning

ENOUGH = 0.97
"""Entropy of batches, relative to a full shuffle, that the default order reaches."""
TOO_LITTLE = 0.9
"""Relative entropy below which a warning is given."""
N_BATCHES = 200
"""Batches over which the entropy is averaged."""
N_PARTS = 10
"""Parts of the files that batches should mix if the experiment has no batches."""
BUFFER_BYTES = 96 * 2**20
"""Memory of the counts of a buffer. Two buffers are in memory at a time."""
BYTES_PER_VALUE = 8
"""Memory of a stored value and the index of its gene."""
MIN_RUN_LENGTH = 4
"""Shortest run that is chosen by default."""
MIN_RUNS = 64
"""Fewest runs of a buffer that are chosen by default."""


def mixing_entropy(
    groups: ArrayLike,
    *,
    run_length: int,
    buffer_size: int,
    batch_size: int = 128,
    seed: int = 0,
) -> float:
    """Entropy of the composition of batches from files, relative to that of a full shuffle.

    The composition of a batch is how many of its cells are of each group, such as the sample or
    the donor. Its entropy is averaged over batches, and divided by the same average for batches
    of cells that were shuffled as a whole. 1 is a full shuffle; 0 are batches of one group each.

    Parameters
    ----------
    groups
        Group of each cell, in the order of the files; any values that numpy can compare.
    run_length
        Consecutive cells that are read together.
    buffer_size
        Cells that are in memory at a time and shuffled there.
    batch_size
        Cells per batch.
    seed
        Seed of the order.

    Raises
    ------
    InvalidOptionError
        If a number is below 1, or there are no cells.
    """
    sizes = {"run_length": run_length, "buffer_size": buffer_size, "batch_size": batch_size}
    for name, size in sizes.items():
        if size < 1:
            raise InvalidOptionError(f"Expected a {name} of at least 1; got {size}.")
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1).astype(np.int64)
    if not len(codes):
        raise InvalidOptionError("Expected at least one cell; got none.")
    cells = torch.arange(len(codes))
    order = RunOrder(run_length=run_length, buffer_size=buffer_size)
    mixed = run_epoch_order(cells, order, seed, 0).numpy()
    full = torch.randperm(len(codes), generator=make_generator(seed, "full")).numpy()
    best = batch_entropy(codes[full], batch_size)
    return min(1.0, batch_entropy(codes[mixed], batch_size) / best) if best > 0 else 1.0


def batch_entropy(codes: NDArray[np.int64], batch_size: int) -> float:
    """Mean entropy of the composition of batches of consecutive cells, in nats."""
    n_groups = int(codes.max()) + 1
    n_batches = max(1, len(codes) // batch_size)
    numbers = np.unique(np.linspace(0, n_batches - 1, N_BATCHES).astype(np.int64))
    entropies = []
    for number in numbers:
        batch = codes[number * batch_size : (number + 1) * batch_size]
        fractions = np.bincount(batch, minlength=n_groups) / len(batch)
        fractions = fractions[fractions > 0]
        entropies.append(-(fractions * np.log(fractions)).sum())
    return float(np.mean(entropies))


def plan_order(
    rows: Rows[Any],
    cells: NDArray[np.int64],
    batch_size: int,
    *,
    shuffle: bool = True,
    n_sets: int = 1,
) -> RunOrder | None:
    """Order of an epoch of cells in files; None for cells that are read one by one.

    Parameters
    ----------
    rows
        Rows of all cells.
    cells
        Indices of the cells of an epoch.
    batch_size
        Cells per batch.
    shuffle
        Whether the cells are shuffled; otherwise only the size of a buffer matters.
    n_sets
        Sets of cells that share the memory of a buffer: 2 if labelled cells are added.
    """
    max_buffer = max_buffer_size(rows, batch_size, n_sets=n_sets)
    if max_buffer is None:
        return None
    if not shuffle or len(cells) <= whole_batches(max_buffer, batch_size):
        return RunOrder(run_length=1, buffer_size=whole_batches(max_buffer, batch_size))
    reader = stored_reader(rows)
    assert reader is not None
    groups = mixing_groups(rows, np.sort(cells))
    return OrderPlanner(groups, reader.matrix.cells_per_chunk, max_buffer).choose(batch_size)


def max_buffer_size(rows: Rows[Any], batch_size: int, *, n_sets: int = 1) -> int | None:
    """Most cells of a buffer, at least one batch; None for cells that are read one by one.

    Parameters
    ----------
    rows, batch_size, n_sets
        As in :func:`plan_order`.
    """
    reader = stored_reader(rows)
    if reader is None:
        return None
    bytes_per_cell = max(1.0, n_sets * reader.matrix.values_per_cell * BYTES_PER_VALUE)
    return max(batch_size, int(BUFFER_BYTES / bytes_per_cell))


def whole_batches(max_buffer: int, batch_size: int) -> int:
    """Cells of a buffer: a multiple of fifty batches if they fit, else of one batch."""
    unit = 50 * batch_size if max_buffer >= 50 * batch_size else batch_size
    return max(1, max_buffer // unit) * unit


def mixing_groups(rows: Rows[Any], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups that batches should mix: the batches of the experiment, or tenths of the files."""
    columns = rows.columns if isinstance(rows, ColumnRows) else {}
    batch = columns.get("batch")
    tenths = np.arange(len(cells)) * N_PARTS // max(1, len(cells))
    if not isinstance(batch, CategoricalColumn):
        return tenths
    codes = batch.take(torch.from_numpy(cells))[:, 0].numpy()
    return codes if (codes != codes[0]).any() else tenths


@final
class OrderPlanner:
    """Chooses run length and buffer size for cells in files.

    Parameters
    ----------
    groups
        Group of each training cell, in the order of the files.
    cells_per_chunk
        Cells that the file compresses as one piece; reading a part of it costs as much as all.
    max_buffer
        Most cells of a buffer, by its memory.
    """

    def __init__(self, groups: NDArray[np.int64], cells_per_chunk: int, max_buffer: int) -> None:
        self.groups = groups
        self.cells_per_chunk = cells_per_chunk
        self.max_buffer = max_buffer

    def choose(self, batch_size: int) -> RunOrder:
        """Longest runs that mix enough, for batches of this size.

        Warns
        -----
        TrainingWarning
            If even the shortest runs do not mix enough.
        """
        buffer_size = whole_batches(self.max_buffer, batch_size)
        longest = max(MIN_RUN_LENGTH, buffer_size // MIN_RUNS)
        length = min(longest, max(64, self.cells_per_chunk))
        entropy = self.entropy(length, buffer_size, batch_size)
        while entropy < ENOUGH and length > MIN_RUN_LENGTH:
            length = max(MIN_RUN_LENGTH, length // 2)
            entropy = self.entropy(length, buffer_size, batch_size)
        if entropy < TOO_LITTLE:
            warn(
                f"Expected batches that are mixed as by a shuffle; the entropy of their "
                f"composition is {entropy:.0%} of it, with {buffer_size:,} cells in memory at a "
                "time. Write the cells to files in a random order once.",
                TrainingWarning,
            )
        return RunOrder(run_length=length, buffer_size=buffer_size)

    def entropy(self, run_length: int, buffer_size: int, batch_size: int) -> float:
        """Relative entropy of batches in this order."""
        return mixing_entropy(
            self.groups, run_length=run_length, buffer_size=buffer_size, batch_size=batch_size
        )
