"""Selections of cells, converted to one-dimensional arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError


def flatten_selection(selection: Any, what: str = "cells") -> NDArray[Any]:
    """Selection of cells as a one-dimensional array of indices, booleans or names.

    Accepts the tuple of one array that `numpy.where(mask)` returns, arrays [1, n] and [n, 1],
    tables with one column, and tensors on any device.

    Parameters
    ----------
    selection
        Indices, a boolean mask or names; neither None nor a slice.
    what
        Name of the argument, for messages.

    Raises
    ------
    InvalidOptionError
        If it has several dimensions, is not a sequence, or mixes booleans with numbers.
    """
    selection = unwrap_selection(selection, what)
    if isinstance(selection, list | tuple):
        check_not_mixed(selection, what)
    is_table_of_cells = hasattr(selection, "obs_names")
    try:
        values = np.asarray(None if is_table_of_cells else selection)
    except (ValueError, TypeError) as error:
        raise InvalidOptionError(
            f"Expected {what} as positions, a mask or names in one dimension; got "
            f"{selection!r:.80}, of which no array can be made: {error}."
        ) from error
    if values.ndim == 0 and values.dtype == object:
        raise InvalidOptionError(
            f"Expected {what} as positions, a mask or names; got a {type(selection).__name__}. "
            f"{selection_advice(selection)}"
        )
    if values.size and max(values.shape, default=1) != values.size:
        raise InvalidOptionError(
            f"Expected {what} in one dimension; got an array of shape {values.shape}. Select one "
            "row or column of it."
        )
    return values.reshape(-1)


def unwrap_selection(selection: Any, what: str) -> Any:
    """Array in a tuple of one array, a tensor or a sparse matrix with one row or column."""
    if isinstance(selection, tuple) and any(np.ndim(part) for part in selection):
        if len(selection) > 1:
            raise InvalidOptionError(
                f"Expected {what} in one dimension; got a tuple of {len(selection)} arrays, as "
                "numpy.where returns for a mask of several dimensions. Give one of them, such as "
                "numpy.where(mask)[0]."
            )
        selection = selection[0]
    if hasattr(selection, "detach"):
        selection = selection.detach().cpu().numpy()
    elif hasattr(selection, "toarray"):
        if 1 not in selection.shape:
            raise InvalidOptionError(
                f"Expected {what} in one dimension; got a matrix of shape {selection.shape}."
            )
        selection = selection.toarray()
    return selection


def check_not_mixed(selection: list[Any] | tuple[Any, ...], what: str) -> None:
    """Refuse booleans among numbers or names, into which NumPy would convert them."""
    booleans = {bool, np.bool_}
    types = {type(value) for value in selection}
    if types & booleans and types - booleans:
        others = sorted(t.__name__ for t in types - booleans)
        raise InvalidOptionError(
            f"Expected {what} as positions, a mask or names; got values of type bool beside "
            f"{', '.join(others)}. Give one of these."
        )


def selection_advice(selection: Any) -> str:
    """Advice for an object that is not a sequence."""
    if hasattr(selection, "obs_names"):
        return "Give the names of its cells: .obs_names."
    if callable(selection):
        return "Call it, and give the result."
    return "Make a list of it."


def check_not_numeric_mask(values: NDArray[Any], n_cells: int, what: str = "cells") -> None:
    """Refuse a 0 or 1 for each cell, which could be a mask or indices.

    Raises
    ------
    InvalidOptionError
        If the values are a 0 or a 1 for each of more than two cells, and both occur.
    """
    if n_cells > 2 and len(values) == n_cells and set(np.unique(values)) == {0, 1}:
        raise InvalidOptionError(
            f"Expected {what} as positions or a mask; got a 0 or 1 for each of the {n_cells:,} "
            "cells, which could be either. Give mask.astype(bool) or numpy.where(mask)."
        )
