"""Arrays that scores are made of, checked."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellvae.core.selection import check_not_numeric_mask, flatten_selection
from cellvae.errors import InvalidOptionError, quote_names


def check_latent(latent: ArrayLike) -> NDArray[np.float64]:
    """Positions of cells in double precision, [cells, latent].

    Raises
    ------
    InvalidOptionError
        If they are not a matrix of finite numbers.
    """
    points = np.asarray(latent, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise InvalidOptionError(f"Expected latent as [cells, latent]; got shape {points.shape}.")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise InvalidOptionError(
            f"Expected finite numbers in latent; got others in {len(bad):,} cells: "
            f"{quote_names([*bad])}."
        )
    return points


def category_codes(values: ArrayLike, n_cells: int, what: str) -> NDArray[np.int64]:
    """Number from 0 of the category of each cell; -1 where it is missing.

    Raises
    ------
    InvalidOptionError
        If there is not one value for each cell.
    """
    column = np.asarray(values, dtype=object)
    if column.shape != (n_cells,):
        raise InvalidOptionError(
            f"Expected one value of {what} for each of the {n_cells:,} cells of latent; "
            f"got shape {column.shape}."
        )
    codes, _ = pd.factorize(column)
    return codes.astype(np.int64)


def check_complete(codes: NDArray[np.int64], what: str, remedy: str) -> None:
    """Check that every cell has a category.

    Raises
    ------
    InvalidOptionError
        If one has none.
    """
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        raise InvalidOptionError(
            f"Expected {what} for every cell; {len(missing):,} of {len(codes):,} have none. "
            f"{remedy}"
        )


def check_several(codes: NDArray[np.int64], what: str) -> None:
    """Check that there is more than one category.

    Raises
    ------
    InvalidOptionError
        If all cells are of one.
    """
    n_categories = len(np.unique(codes))
    if n_categories < 2:
        raise InvalidOptionError(
            f"Expected cells of two or more values of {what}; got {n_categories}. "
            "There is nothing to tell apart: leave this score out."
        )


def check_positions(cells: ArrayLike | slice | None, n_cells: int, what: str) -> NDArray[np.int64]:
    """Positions of the chosen cells; of all where nothing was chosen.

    Raises
    ------
    InvalidOptionError
        If they are neither truths, one for each cell, nor numbers of cells, or if a cell repeats.
    """
    if cells is None:
        return np.arange(n_cells, dtype=np.int64)
    if isinstance(cells, slice):
        cells = np.arange(n_cells)[cells]
    chosen = flatten_selection(cells, what)
    if chosen.dtype == bool and chosen.shape == (n_cells,):
        chosen = np.flatnonzero(chosen)
    whole = np.issubdtype(chosen.dtype, np.integer)
    if whole:
        check_not_numeric_mask(chosen, n_cells, what)
    if not whole or not len(chosen) or chosen.min() < 0 or chosen.max() >= n_cells:
        raise InvalidOptionError(
            f"Expected {what} as numbers from 0 to {n_cells - 1:,} or as {n_cells:,} truths, at "
            f"least one cell; got {cells!r:.80}."
        )
    if len(np.unique(chosen)) < len(chosen):
        raise InvalidOptionError(f"Expected each cell once in {what}; got some more often.")
    return chosen.astype(np.int64)
