"""Registration of query data: that of the reference, with the new categories of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cellvae.data.setup.categories import CategoryCodes, Scalar, quote_with_type, to_python_scalar
from cellvae.data.setup.fields import Categories, Category, Field, Labels
from cellvae.data.setup.obs_columns import to_categorical
from cellvae.data.setup.records import CategoriesRecord, CategoryRecord, FieldRecord
from cellvae.data.setup.registration import Registration
from cellvae.errors import DataMismatchError

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
    records: dict[str, FieldRecord] = dict(registration.fields)
    for field in fields:
        known = records[field.name]
        if isinstance(field, Category) and field.key is not None:
            assert isinstance(known, CategoryRecord) and not isinstance(field, Labels)
            records[field.name] = replace(
                known, categories=append_categories(adata, field.key, known.categories)
            )
        elif isinstance(field, Categories):
            assert isinstance(known, CategoriesRecord)
            pairs = zip(field.keys, known.categories, strict=True)
            records[field.name] = replace(
                known,
                categories=tuple(append_categories(adata, key, values) for key, values in pairs),
            )
    return replace(registration, n_cells=int(adata.n_obs), fields=records)


def append_categories(adata: AnnData, key: str, known: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Known categories, followed by the new ones that occur in cells, in the order of pandas."""
    column = to_categorical(adata, key).cat
    n_cells = np.bincount(column.codes, minlength=len(column.categories))
    present = [
        to_python_scalar(value) for value, n in zip(column.categories, n_cells, strict=True) if n
    ]
    codes = CategoryCodes(known)
    new = [value for value in present if codes.find(value) is None]
    same_string = [value for value in new if str(value) in {str(other) for other in known}]
    if same_string:
        raise DataMismatchError(
            f"Expected categories in adata.obs['{key}'] of the type that the reference has "
            f"({quote_with_type(known, same_string)}); got {quote_with_type(same_string, known)}. "
            "Convert the column, or rename the categories if they are different ones."
        )
    return (*known, *new)
