"""Cells by the modalities that were measured in them, for models of several modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cellvae.core.log import warn
from cellvae.data.setup.fields.field import Field
from cellvae.errors import DataWarning, InvalidDataError, count_noun, quote_names

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

SEPARATOR = " + "
"""Between the names of the modalities of a cell."""
NOTHING = "none"
"""In place of the names of modalities, for cells without counts."""


def measured_modalities(adata: AnnData, fields: Sequence[Field]) -> dict[str, NDArray[np.bool_]]:
    """Whether each cell has counts of each modality that cells may lack, [cells], by axis."""
    masks = {}
    for field in fields:
        mask = field.measured_cells(field.table(adata))
        if mask is not None:
            masks[str(field.axis)] = mask
    return masks


def count_modality_cells(masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, int]:
    """Number of cells for each set of modalities, those with the most modalities first.

    Parameters
    ----------
    masks
        Whether each cell has each modality, [cells], by axis.

    Returns
    -------
    Numbers by the names of the axes, such as `"genes + regions"`; `"none"` for cells without
    counts. Sets without cells are left out.
    """
    if not masks:
        return {}
    patterns, n_cells = np.unique(np.stack([*masks.values()]), axis=1, return_counts=True)
    order = sorted(
        range(len(n_cells)), key=lambda i: (-patterns[:, i].sum(), *(~patterns[:, i]).tolist())
    )
    names = np.array([*masks], dtype=object)
    return {SEPARATOR.join(names[patterns[:, i]]) or NOTHING: int(n_cells[i]) for i in order}


def check_modality_cells(
    masks: Mapping[str, NDArray[np.bool_]], cells: Sequence[object], locations: Mapping[str, str]
) -> None:
    """Refuse a modality that no cell has, and warn of cells without any.

    Parameters
    ----------
    masks
        Whether each cell has each modality, [cells], by axis.
    cells
        Names of the cells.
    locations
        Where the counts of each axis are, for messages.

    Raises
    ------
    InvalidDataError
        If no cell has counts of a modality.

    Warns
    -----
    DataWarning
        If cells have no counts at all; the message names the first.
    """
    for axis, mask in masks.items():
        if not mask.any():
            raise InvalidDataError(
                f"Expected counts of {axis} in some cells; got none in {locations[axis]}. Leave "
                f"the {axis} out: give a MuData without that modality in modalities, or an AnnData "
                "without these features."
            )
    if not masks:
        return
    lacking = ~np.any([*masks.values()], axis=0)
    if lacking.any():
        names = quote_names([cells[int(i)] for i in np.flatnonzero(lacking)])
        warn(
            f"Expected counts of {quote_axes([*masks])} in every cell; got "
            f"{count_noun(int(lacking.sum()), 'cell')} of {len(lacking):,} without any: {names}. "
            "They have no information for the model; leave them out.",
            DataWarning,
        )


def quote_axes(axes: Sequence[str]) -> str:
    """Names of axes in a sentence: `genes, regions or proteins`."""
    *first, last = axes
    return f"{', '.join(first)} or {last}" if first else last
