"""Selection of cells by the user: by indices, a mask, a slice, or names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cellvae.core.selection import check_not_numeric_mask, flatten_selection
from cellvae.errors import (
    InvalidDataError,
    InvalidOptionError,
    UnknownKeyError,
    count_noun,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData

Cells: TypeAlias = "ArrayLike | Sequence[str] | slice | pd.Series | pd.Index | Tensor | None"
"""Selection of cells: indices, a mask, a slice, names, or None for all."""


def cell_indices(indices: Cells, data: AnnData | int) -> NDArray[np.int64]:
    """Indices of selected cells, in the order of the selection; a cell may repeat.

    Parameters
    ----------
    indices
        None for all cells; integers, where -1 is the last cell; a slice; a mask with one boolean
        for each cell; or names of cells, if `data` is an AnnData. Arrays [1, n] and [n, 1] and
        the tuple that `numpy.where(mask)` returns are flattened.
    data
        AnnData, or its number of cells.

    Raises
    ------
    InvalidOptionError
        If an index is out of range, a mask has another length or other cells, the values are of
        another type, or they could be a mask as well as indices.
    UnknownKeyError
        If there is no cell of a given name.
    InvalidDataError
        If names are given and the AnnData has cells of the same name.
    """
    n_cells = data if isinstance(data, int) else int(data.n_obs)
    if indices is None or isinstance(indices, slice):
        return indices_from_slice(slice(None) if indices is None else indices, n_cells)
    if isinstance(indices, pd.DataFrame) and indices.shape[1] == 1:
        indices = indices.iloc[:, 0]
    values = flatten_selection(indices)
    if values.size == 0:
        return np.zeros(0, dtype=np.int64)
    inferred = pd.api.types.infer_dtype(values, skipna=False)
    if inferred == "boolean":
        return indices_from_mask(indices, values.astype(bool), data, n_cells)
    if inferred == "integer":
        check_not_numeric_mask(values, n_cells)
        return indices_from_integers(values, n_cells)
    if inferred == "string":
        return indices_from_names(values, data)
    advice = " Convert them: .astype(int) for indices, .astype(bool) for a mask."
    raise InvalidOptionError(
        "Expected cells as integers, a mask or names; got values of type "
        f"{values.dtype}, first {values[0]!r}.{advice if values.dtype.kind == 'f' else ''}"
    )


def indices_from_slice(selected: slice, n_cells: int) -> NDArray[np.int64]:
    """Indices of the cells in a slice."""
    try:
        return np.arange(n_cells, dtype=np.int64)[selected]
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(
            f"Expected a slice of integers; got {selected}: {error}. Select cells by name with a "
            "list of names."
        ) from error


def indices_from_mask(
    indices: object, mask: NDArray[np.bool_], data: AnnData | int, n_cells: int
) -> NDArray[np.int64]:
    """Indices where a mask is true; a pandas mask is aligned with the names of the cells."""
    if isinstance(indices, pd.Series) and not isinstance(data, int):
        names, labels = data.obs_names, indices.index
        if labels.is_unique and not labels.equals(names):
            if names.isin(labels).all():
                mask = mask[labels.get_indexer(names)]
            elif pd.api.types.infer_dtype(labels, skipna=False) == "string":
                missing = [*names[~names.isin(labels)]]
                raise InvalidOptionError(
                    f"Expected a mask of the {n_cells:,} cells; its index lacks "
                    f"{count_noun(len(missing), 'cell')}: {quote_names(missing)}. Give "
                    "mask.to_numpy() if it "
                    "is in the order of the cells."
                )
    if len(mask) != n_cells:
        raise InvalidOptionError(
            f"Expected one boolean for each of the {n_cells:,} cells; got {len(mask):,}."
        )
    return np.flatnonzero(mask).astype(np.int64)


def indices_from_integers(values: NDArray[np.integer], n_cells: int) -> NDArray[np.int64]:
    """Indices from integers, negative ones counted from the end."""
    cells = values.astype(np.int64)
    outside = (cells < -n_cells) | (cells >= n_cells)
    if outside.any():
        raise InvalidOptionError(
            f"Expected indices of cells from 0 to {n_cells - 1:,}; "
            f"got {count_noun(int(outside.sum()), 'other')}: {quote_names([*cells[outside]])}."
        )
    return np.where(cells < 0, cells + n_cells, cells)


def indices_from_names(values: NDArray[np.str_], data: AnnData | int) -> NDArray[np.int64]:
    """Indices from names of cells."""
    if isinstance(data, int):
        raise InvalidOptionError(
            f"Expected indices of cells or a mask; got names, first '{values[0]}'."
        )
    names = data.obs_names
    if not names.is_unique:
        raise InvalidDataError(
            "Expected different names for all cells to find cells by name; got "
            f"{quote_names([*names[names.duplicated()].unique()])} more than once. Make them "
            "different "
            "with adata.obs_names_make_unique(), or use indices."
        )
    found = names.get_indexer(pd.Index(values.astype(object)))
    if (found < 0).any():
        unknown = [*values[found < 0]]
        raise UnknownKeyError(
            f"Expected names of cells; got {count_noun(len(unknown), 'other')}: "
            f"{quote_names(unknown)}."
            f"{did_you_mean(str(unknown[0]), map(str, names))}"
        )
    return found.astype(np.int64)
