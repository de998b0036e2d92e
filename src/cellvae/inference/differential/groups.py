"""Populations of cells to compare: groups of a column, or cells that a user selects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.core.log import warn
from cellvae.data.batches.indexing import Cells, cell_indices
from cellvae.data.setup.categories import (
    CategoryCodes,
    Scalar,
    requested_values,
    to_python_scalar,
    unknown_values,
)
from cellvae.data.setup.obs_columns import to_categorical
from cellvae.errors import DataWarning, InvalidOptionError, UnknownKeyError, quote_names
from cellvae.inference.latent.latent_representation import get_latent_representation
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData

REST = "Rest"
"""Name of all cells that are not in a group."""


class Comparison(NamedTuple):
    """Two populations that are compared, by their positions among all populations."""

    first: int
    second: int
    names: tuple[Scalar, Scalar] | None
    """Names of the groups, in the type of the column; None for cells that a user selected."""


class Populations(NamedTuple):
    """Populations of cells, each once, and which of them are compared."""

    cells: list[NDArray[np.int64]]
    """Indices of the cells of each population."""
    comparisons: list[Comparison]


def populations_of_column(
    adata: AnnData, groupby: str, group1: object = None, group2: object = None
) -> Populations:
    """Groups of a column, each compared with one group or with all other cells.

    Cells without a value are in no group, and belong to the other cells.

    Parameters
    ----------
    adata
        Cells.
    groupby
        Column of `adata.obs`.
    group1
        A group or several; None for all but `group2`.
    group2
        Group to compare with; None for all other cells.

    Raises
    ------
    UnknownKeyError
        If there is no such column or group; values and types must agree.
    InvalidOptionError
        If a group has no cells, is compared with itself, or is the only one.
    """
    values = to_categorical(adata, groupby, complete=False)
    codes = values.cat.codes.to_numpy()
    categories = [*values.cat.categories]
    n_cells = np.bincount(codes[codes >= 0], minlength=len(categories))
    names = [] if group1 is None else requested_values(group1, map(to_python_scalar, categories))
    groups = [group_code(name, categories, n_cells, groupby) for name in names]
    other = None if group2 is None else group_code(group2, categories, n_cells, groupby)
    if group1 is None:
        groups = [int(code) for code in np.flatnonzero(n_cells) if code != other]
    if not groups:
        raise InvalidOptionError("Expected at least one group in group1; got none.")
    cells = [np.flatnonzero(codes == code) for code in groups]
    n = len(groups)
    if other is None:
        others = [np.flatnonzero(codes != code) for code in groups]
        for code, rest in zip(groups, others, strict=True):
            if not len(rest):
                raise InvalidOptionError(
                    f"Expected several groups in adata.obs['{groupby}']; got only "
                    f"'{categories[code]}', and no cells to compare it with."
                )
        pairs = [Comparison(i, n + i, (categories[code], REST)) for i, code in enumerate(groups)]
        return Populations([*cells, *others], pairs)
    if other in groups:
        raise InvalidOptionError(
            f"Expected group2 to be another group than those of group1; got '{group2}' in both."
        )
    pairs = [
        Comparison(i, n, (categories[code], categories[other])) for i, code in enumerate(groups)
    ]
    return Populations([*cells, np.flatnonzero(codes == other)], pairs)


def group_code(
    group: object, categories: list[Scalar], n_cells: NDArray[np.int64], groupby: str
) -> int:
    """Code of a group: its position among the categories of a column.

    Raises
    ------
    UnknownKeyError
        If there is no such group.
    InvalidOptionError
        If it has no cells.
    """
    used = [to_python_scalar(value) for value, n in zip(categories, n_cells, strict=True) if n]
    code = CategoryCodes([*map(to_python_scalar, categories)]).find(group)
    if code is None:
        message = unknown_values([group], used, most=10)
        raise UnknownKeyError(
            f"Expected a group of adata.obs['{groupby}']; got {message.got}.{message.advice} "
            f"The groups are {message.expected}."
        )
    if not n_cells[code]:
        raise InvalidOptionError(
            f"Expected a group with cells; got '{group}', a category of adata.obs['{groupby}'] "
            "that no cell has."
        )
    return code


def populations_of_cells(adata: AnnData, idx1: Cells, idx2: Cells = None) -> Populations:
    """Cells that a user selects, compared with others or with all other cells.

    Parameters
    ----------
    adata
        Cells.
    idx1, idx2
        A query of `adata.obs` as a string, a mask, indices or names of cells; None for `idx2` is
        all cells that are not in `idx1`.

    Raises
    ------
    InvalidOptionError
        If a query is invalid, a population has no cells, or a cell is in both.
    """
    first = resolve_cells(adata, idx1, "idx1")
    if idx2 is None:
        second = np.setdiff1d(np.arange(adata.n_obs), first)
        if not len(second):
            raise InvalidOptionError("Expected idx1 to leave cells to compare with; got all cells.")
    else:
        second = resolve_cells(adata, idx2, "idx2")
    shared = np.intersect1d(first, second)
    if len(shared):
        raise InvalidOptionError(
            f"Expected different cells in idx1 and idx2; got {len(shared):,} in both: "
            f"{quote_names([*adata.obs_names[shared]])}."
        )
    return Populations([first, second], [Comparison(0, 1, None)])


def resolve_cells(adata: AnnData, indices: Cells, argument: str) -> NDArray[np.int64]:
    """Sorted indices of the cells of a query, mask or list, each once."""
    if isinstance(indices, str):
        try:
            matches = adata.obs.set_axis(pd.RangeIndex(adata.n_obs)).query(indices)
        except (ValueError, TypeError, KeyError, NameError, SyntaxError) as error:
            raise InvalidOptionError(
                f"Expected {argument} to be a query of the columns of adata.obs, such as "
                f"\"cell_type == 'B'\"; got {indices!r}: {error}."
            ) from error
        cells = np.array(matches.index, dtype=np.int64)
    else:
        cells = np.unique(cell_indices(indices, adata))
    if not len(cells):
        raise InvalidOptionError(f"Expected {argument} to select cells; got none.")
    return cells


def drop_outliers(
    model: DecoderModel,
    adata: AnnData | None,
    populations: list[NDArray[np.int64]],
    batch_size: int | None,
) -> list[NDArray[np.int64]]:
    """Indices of the cells of each population without its outliers in the latent space.

    Outliers are the tenth of the cells that is farthest outside an ellipsoid (scikit-learn's
    `EllipticEnvelope`).
    """
    cells = np.unique(np.concatenate(populations))
    latent = get_latent_representation(model, adata, indices=cells, batch_size=batch_size)
    return [
        indices[inlier_mask(latent[np.searchsorted(cells, indices)])] for indices in populations
    ]


def inlier_mask(latent: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each cell is within the ellipsoid of nine tenths of them, [cells]."""
    from sklearn.covariance import EllipticEnvelope

    if len(latent) <= 2 * latent.shape[1]:
        warn(
            f"Expected more than {2 * latent.shape[1]:,} cells to find outliers in a latent space "
            f"of {latent.shape[1]} dimensions; got {len(latent):,}, none of which is left out.",
            DataWarning,
        )
        return np.ones(len(latent), dtype=bool)
    is_inlier: NDArray[np.bool_] = EllipticEnvelope(random_state=0).fit_predict(latent) == 1
    return is_inlier
