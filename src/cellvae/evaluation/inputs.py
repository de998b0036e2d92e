"""Checks of the arrays that scores are computed from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cellvae.core.selection import check_not_numeric_mask, flatten_selection
from cellvae.errors import InvalidOptionError, quote_names


def check_latent(latent: ArrayLike) -> NDArray[np.float64]:
    """Latent positions of cells in double precision, [cells, latent].

    Raises
    ------
    InvalidOptionError
        If they are not a matrix of finite numbers.
    """
    points = np.asarray(latent, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise InvalidOptionError(f"Expected latent as [cells, latent]; got shape {points.shape}.")
    not_finite = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(not_finite):
        raise InvalidOptionError(
            f"Expected finite numbers in latent; got others in {len(not_finite):,} cells: "
            f"{quote_names([*not_finite])}."
        )
    return points


def category_codes(values: ArrayLike, n_cells: int, what: str) -> NDArray[np.int64]:
    """Code of the category of each cell, from 0; -1 for a missing value.

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
        If a cell has none.
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
        If all cells have the same.
    """
    n_categories = len(np.unique(codes))
    if n_categories < 2:
        raise InvalidOptionError(
            f"Expected cells of two or more values of {what}; got {n_categories}. "
            "A score needs several: leave it out."
        )


def check_positions(cells: ArrayLike | slice | None, n_cells: int, what: str) -> NDArray[np.int64]:
    """Indices of the chosen cells; of all cells for None.

    Raises
    ------
    InvalidOptionError
        If they are neither a boolean mask of all cells nor indices, or if a cell repeats.
    """
    if cells is None:
        return np.arange(n_cells, dtype=np.int64)
    if isinstance(cells, slice):
        cells = np.arange(n_cells)[cells]
    chosen = flatten_selection(cells, what)
    if chosen.dtype == bool and chosen.shape == (n_cells,):
        chosen = np.flatnonzero(chosen)
    is_integer = np.issubdtype(chosen.dtype, np.integer)
    if is_integer:
        check_not_numeric_mask(chosen, n_cells, what)
    if not is_integer or not len(chosen) or chosen.min() < 0 or chosen.max() >= n_cells:
        raise InvalidOptionError(
            f"Expected {what} as indices from 0 to {n_cells - 1:,} or as a mask of {n_cells:,} "
            f"booleans, with at least one cell; got {cells!r:.80}."
        )
    if len(np.unique(chosen)) < len(chosen):
        raise InvalidOptionError(f"Expected each cell once in {what}; got some several times.")
    return chosen.astype(np.int64)
