"""Cells that are compared: groups of a column, or cells that a user points at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.data.cells import Cells, cell_numbers
from cellvae.data.observations import column
from cellvae.errors import InvalidOptionError, UnknownKeyError, did_you_mean, named

if TYPE_CHECKING:
    from anndata import AnnData

REST = "Rest"
"""Name of all cells that are not in a group."""


class Comparison(NamedTuple):
    """Two populations that are compared, by their places among all populations."""

    first: int
    second: int
    names: tuple[str, str] | None
    """Names of the groups; None for cells that a user pointed at."""


class Populations(NamedTuple):
    """Cells that are compared with others, each population kept once."""

    cells: list[NDArray[np.int64]]
    """Numbers of the cells of each population."""
    comparisons: list[Comparison]


def populations_of_column(
    adata: AnnData, groupby: str, group1: object = None, group2: object = None
) -> Populations:
    """Groups of a column, each against another one or against all other cells.

    Cells without a value are in no group, and so among the others.

    Parameters
    ----------
    adata
        Cells.
    groupby
        Column of `adata.obs`.
    group1
        A group or several; None for all but `group2`.
    group2
        Group that they are compared with; None for all other cells.

    Raises
    ------
    UnknownKeyError
        If there is no such column or group.
    InvalidOptionError
        If a group has no cells, is compared with itself, or is all there is.
    """
    values = column(adata, groupby).astype("category")
    codes = values.cat.codes.to_numpy()
    names = [str(name) for name in values.cat.categories]
    alone = isinstance(group1, str) or not isinstance(group1, Iterable)
    asked: list[Any] = [group1] if alone else [*group1]  # type: ignore[misc]
    used = [name for code, name in enumerate(names) if (codes == code).any()]
    if group1 is None:
        asked = [name for name in used if group2 is None or name != str(group2)]
    if not asked:
        raise InvalidOptionError("Expected at least one group in group1; got none.")
    chosen = [str(name) for name in asked]
    for name in [*chosen, *([] if group2 is None else [str(group2)])]:
        check_group(name, names, used, groupby)
    cells = [np.flatnonzero(codes == names.index(name)) for name in chosen]
    if group2 is None:
        others = [np.flatnonzero(codes != names.index(name)) for name in chosen]
        for name, left in zip(chosen, others, strict=True):
            if not len(left):
                raise InvalidOptionError(
                    f"Expected several groups in adata.obs['{groupby}']; got only '{name}', and "
                    "no cells to compare it with."
                )
        n = len(chosen)
        pairs = [Comparison(i, n + i, (name, REST)) for i, name in enumerate(chosen)]
        return Populations([*cells, *others], pairs)
    if str(group2) in chosen:
        raise InvalidOptionError(
            f"Expected group2 to be another group than those of group1; got '{group2}' in both."
        )
    n = len(chosen)
    second = np.flatnonzero(codes == names.index(str(group2)))
    pairs = [Comparison(i, n, (name, str(group2))) for i, name in enumerate(chosen)]
    return Populations([*cells, second], pairs)


def check_group(name: str, names: list[str], used: list[str], groupby: str) -> None:
    """Refuse a group that does not exist, or that no cell is in."""
    if name not in names:
        raise UnknownKeyError(
            f"Expected a group of adata.obs['{groupby}']; got '{name}'."
            f"{did_you_mean(name, names)} The groups are {named(used, most=10)}."
        )
    if name not in used:
        raise InvalidOptionError(
            f"Expected a group with cells; got '{name}', a category of adata.obs['{groupby}'] "
            "that no cell has."
        )


def populations_of_cells(adata: AnnData, idx1: Cells, idx2: Cells = None) -> Populations:
    """Cells that a user points at, against others, or against the rest.

    Parameters
    ----------
    adata
        Cells.
    idx1, idx2
        A query of `adata.obs` as text, a mask, numbers or names of cells; None for `idx2` is all
        cells that are not in `idx1`.

    Raises
    ------
    InvalidOptionError
        If a query cannot be read, there are no cells, or a cell is in both.
    """
    first = pointed_at(adata, idx1, "idx1")
    if idx2 is None:
        second = np.setdiff1d(np.arange(adata.n_obs), first)
        if not len(second):
            raise InvalidOptionError("Expected idx1 to leave cells to compare with; got all cells.")
    else:
        second = pointed_at(adata, idx2, "idx2")
    shared = np.intersect1d(first, second)
    if len(shared):
        raise InvalidOptionError(
            f"Expected different cells in idx1 and idx2; got {len(shared):,} in both: "
            f"{named([*adata.obs_names[shared]])}."
        )
    return Populations([first, second], [Comparison(0, 1, None)])


def pointed_at(adata: AnnData, indices: Cells, argument: str) -> NDArray[np.int64]:
    """Numbers of the cells of a query, mask or list, each once."""
    if isinstance(indices, str):
        try:
            found = adata.obs.set_axis(pd.RangeIndex(adata.n_obs)).query(indices)
        except (ValueError, TypeError, KeyError, NameError, SyntaxError) as error:
            raise InvalidOptionError(
                f"Expected {argument} to be a query of the columns of adata.obs, such as "
                f"\"cell_type == 'B'\"; got {indices!r}: {error}."
            ) from error
        numbers = found.index.to_numpy(dtype=np.int64)
    else:
        numbers = np.unique(cell_numbers(indices, adata))
    if not len(numbers):
        raise InvalidOptionError(f"Expected {argument} to point at cells; got none.")
    return numbers
