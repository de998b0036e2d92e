"""Registration of query data: that of the reference, with the new categories of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cellvae.data.setup.fields import (
    Field,
)
from cellvae.data.setup.fields.modality_cells import count_modality_cells, measured_modalities
from cellvae.data.setup.registration import Registration

if TYPE_CHECKING:
    from anndata import AnnData


def extend_registration(
    registration: Registration[Any], adata: AnnData, fields: Sequence[Field]
) -> Registration[Any]:
    """Registration of query data; their new categories follow those of the reference.

    Labels that a model predicts are not extended.

    Raises
    ------
    UnknownKeyError
        If a column does not exist.
    InvalidDataError
        If a cell has no category.
    DataMismatchError
        If a new category equals a known one except for its type.
    """
    records = {}
    for field in fields:
        axis = None if field.axis is None else registration.axes[field.axis]
        records[field.name] = field.extend(
            field.table(adata), registration.fields[field.name], axis
        )
    return replace(
        registration,
        n_cells=int(adata.n_obs),
        fields={**registration.fields, **records},
        modality_cells=count_modality_cells(measured_modalities(adata, fields)),
    )
