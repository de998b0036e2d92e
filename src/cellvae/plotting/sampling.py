"""Stratified random sample of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError


def stratified_sample(
    n_cells: int, max_cells: int, strata: Sequence[ArrayLike] = (), *, seed: int = 0
) -> NDArray[np.int64]:
    """Random cells, stratified by the combinations of categories.

    Each combination has at least one cell, so that rare cell types are included; the others are
    allocated in proportion by largest remainders. If there are more combinations than cells to
    choose, the last column is ignored.

    Parameters
    ----------
    n_cells
        Number of cells to choose from.
    max_cells
        Number of cells to choose; all if there are no more.
    strata
        Categorical columns, each [cells], the most important first. Missing values are a category.
    seed
        Seed of the sample.

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
    # Random order, then a stable sort by stratum: the first cells of a stratum are a random sample.
    order = np.random.default_rng(seed).permutation(n_cells)
    order = order[np.argsort(codes[order], kind="stable")]
    sizes = np.bincount(codes)
    rank = np.arange(n_cells) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < np.repeat(allocate(sizes, max_cells), sizes)]
    return np.sort(chosen)


def joint_codes(columns: Sequence[NDArray[np.generic]], n_cells: int) -> NDArray[np.int64]:
    """Code of the combination of categories of each cell, from 0 without gaps."""
    codes = np.zeros(n_cells, dtype=np.int64)
    for column in columns:
        own, categories = pd.factorize(column, use_na_sentinel=False)
        codes = np.unique(codes * len(categories) + own, return_inverse=True)[1].reshape(-1)
    return codes


def allocate(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Allocate `total` in proportion to sizes, at least 1 and at most the size for each."""
    remaining = sizes - 1
    exact = remaining * ((total - len(sizes)) / max(1, remaining.sum()))
    allocated = np.floor(exact).astype(np.int64)
    missing = total - len(sizes) - int(allocated.sum())
    largest = np.argsort(allocated - exact, kind="stable")[:missing]
    allocated[largest] += 1
    return allocated + 1
