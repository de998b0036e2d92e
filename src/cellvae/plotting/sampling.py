"""Random choice of cells that keeps the shares of batches and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError


def stratified_sample(
    n_cells: int, max_cells: int, strata: Sequence[ArrayLike] = (), *, seed: int = 0
) -> NDArray[np.int64]:
    """Random cells in which each combination of categories has its share.

    Sizes are allocated by largest remainders, after one cell for each combination, so that a rare
    cell type does not vanish. Where there are more combinations than cells to choose, the last
    column is left out of them.

    Parameters
    ----------
    n_cells
        Number of cells to choose from.
    max_cells
        Cells to choose; all of them if there are no more.
    strata
        Columns of categories, each [cells], the most important first. A missing value is a
        category of its own.
    seed
        Seed of the choice.

    Returns
    -------
    Indices of the chosen cells in ascending order, [min(n_cells, max_cells)].

    Raises
    ------
    InvalidOptionError
        If a column has another number of values than there are cells.
    """
    if max_cells < 1:
        raise InvalidOptionError(f"Expected max_cells to be at least 1; got {max_cells}.")
    columns = [np.asarray(column) for column in strata]
    for column in columns:
        if len(column) != n_cells:
            raise InvalidOptionError(
                f"Expected a value of strata for each of {n_cells:,} cells; got {len(column):,}."
            )
    if n_cells <= max_cells:
        return np.arange(n_cells)
    codes = joint_codes(columns, n_cells)
    while columns and codes.max() >= max_cells:
        columns.pop()
        codes = joint_codes(columns, n_cells)
    # Cells in random order, sorted by stratum: the first few of each stratum are a random choice.
    order = np.random.default_rng(seed).permutation(n_cells)
    order = order[np.argsort(codes[order], kind="stable")]
    sizes = np.bincount(codes)
    rank = np.arange(n_cells) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < np.repeat(allocate(sizes, max_cells), sizes)]
    return np.sort(chosen)


def joint_codes(columns: Sequence[NDArray[np.generic]], n_cells: int) -> NDArray[np.int64]:
    """Number of the combination of categories that each cell has, from 0 without gaps."""
    codes = np.zeros(n_cells, dtype=np.int64)
    for column in columns:
        own, categories = pd.factorize(column, use_na_sentinel=False)
        codes = np.unique(codes * len(categories) + own, return_inverse=True)[1].reshape(-1)
    return codes


def allocate(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Parts of `total` in proportion to sizes, at least 1 each and none above its size."""
    others = sizes - 1
    exact = others * ((total - len(sizes)) / max(1, others.sum()))
    parts = np.floor(exact).astype(np.int64)
    missing = total - len(sizes) - int(parts.sum())
    largest = np.argsort(parts - exact, kind="stable")[:missing]
    parts[largest] += 1
    return parts + 1
