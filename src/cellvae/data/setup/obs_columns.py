"""Columns of `adata.obs`: found, complete, and as codes or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellvae.data.setup.categories import CategoryCodes, Scalar, to_python_scalar, unknown_values
from cellvae.data.setup.keys import check_is_anndata
from cellvae.errors import (
    DataMismatchError,
    InvalidDataError,
    UnknownKeyError,
    count_noun,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def obs_column(adata: AnnData, key: str) -> pd.Series:
    """Column of `adata.obs`.

    Raises
    ------
    UnknownKeyError
        If there is none of this name.
    InvalidDataError
        If there are several of this name.
    """
    columns = [str(name) for name in adata.obs.columns]
    if key not in columns:
        raise UnknownKeyError(
            f"Expected a column of adata.obs; got '{key}'.{did_you_mean(key, columns)} "
            f"The columns are {quote_names(columns, most=10) or 'none'}."
        )
    if columns.count(key) > 1:
        raise InvalidDataError(
            f"Expected one column '{key}' in adata.obs; got {columns.count(key)} of this name. "
            "Rename or drop all but one."
        )
    return adata.obs[key]


def to_categorical(adata: AnnData, key: str, *, complete: bool = True) -> pd.Series:
    """Column as pandas categories; the order of existing categories is kept.

    With `complete`, every cell has to have one.

    Raises
    ------
    InvalidDataError
        If the value of a cell is missing, or values cannot be categories, as lists cannot.
    """
    try:
        values = obs_column(adata, key)
        # pandas has no index of these types, and so no categories.
        others = {"float16": "float32", "longdouble": "float64", "float128": "float64"}
        values = values.astype(others.get(str(values.dtype), values.dtype))
        values = values.astype("category")
    except TypeError as error:
        raise InvalidDataError(
            f"Expected values in adata.obs['{key}'] that can be told apart (text, numbers, dates, "
            f"tuples); got others: {error}. Convert them with adata.obs['{key}'].astype(str)."
        ) from error
    if complete:
        raise_if_missing(adata, key, values.isna().to_numpy())
    return values


def column_categories(adata: AnnData, key: str) -> tuple[Scalar, ...]:
    """Categories of a column, in the order that pandas gives them, unused ones too."""
    return distinct([*to_categorical(adata, key).cat.categories], key)


def distinct(values: Sequence[object], key: str) -> tuple[Scalar, ...]:
    """Categories in the types that files hold.

    Raises
    ------
    InvalidDataError
        If two of them are the same then, as an object and its text are.
    """
    found = tuple(map(to_python_scalar, values))
    if len(set(found)) < len(found):
        twice = sorted({str(value) for value in found if found.count(value) > 1})
        raise InvalidDataError(
            f"Expected different categories in adata.obs['{key}']; got several objects whose text "
            f"is {quote_names(twice)}. Convert them with adata.obs['{key}'].astype(str)."
        )
    return found


def label_text(adata: AnnData, key: str, label: object) -> object:
    """Text of a label, by which labels are compared; what is no label stays as it is.

    A value of a column is found by its equal: -1 is -1.0 where the column has numbers with a point.
    """
    value = to_python_scalar(label)
    check_is_anndata(adata)
    if isinstance(value, str):
        return label
    if key in adata.obs:
        for category in to_categorical(adata, key, complete=False).cat.categories:
            if to_python_scalar(category) == value:
                return str(to_python_scalar(category))
    return str(value)


def label_categories(adata: AnnData, key: str, unlabeled: str) -> tuple[Scalar, ...]:
    """Labels of a column, that of cells without one last.

    It changes places with the last of the others, as in scvi-tools, so that weights can be
    exchanged; where no cell has it, it is added.
    """
    values = to_categorical(adata, key, complete=False)
    found = [*distinct([*values.cat.categories], key)]
    texts = [str(value) for value in found]
    if unlabeled not in texts:
        return (*found, unlabeled)
    place = texts.index(unlabeled)
    found[place], found[-1] = found[-1], found[place]
    return tuple(found)


def category_codes(
    adata: AnnData, key: str, known: tuple[Scalar, ...], *, missing: int | None = None
) -> NDArray[np.int64]:
    """Position of each cell's category among the known ones, [cells].

    Categories are compared by value, whatever their order in this AnnData. Cells whose value is
    missing have the position `missing`; where it is None, there may be none.

    Raises
    ------
    DataMismatchError
        If a cell has a category that is not known.
    """
    values = to_categorical(adata, key, complete=missing is None)
    own = [to_python_scalar(value) for value in values.cat.categories]
    position = CategoryCodes(known)
    found_codes = [position.find(value) for value in own]
    translated = np.array([-1 if c is None else c for c in found_codes], dtype=np.int64)
    own_codes = values.cat.codes.to_numpy()
    # Pandas gives missing values the code -1, which is the last place here.
    found = np.append(translated, -1 if missing is None else missing)[own_codes]
    if (found < 0).any():
        used = np.bincount(own_codes[own_codes >= 0], minlength=len(own))
        unknown = [value for value, code in zip(own, translated, strict=True) if code < 0]
        counts = used[translated < 0]
        unknown = [value for value, n in zip(unknown, counts, strict=True) if n]
        message = unknown_values(unknown, known)
        raise DataMismatchError(
            f"Expected categories that the model knows in adata.obs['{key}'] "
            f"({message.expected}); got {message.got} in {int(counts.sum()):,} cells."
            f"{message.advice} Leave these cells out, or correct the column."
        )
    return found


def numeric_column(adata: AnnData, key: str, *, positive: bool = False) -> NDArray[np.float32]:
    """Number of each cell, [cells].

    Raises
    ------
    InvalidDataError
        If the column does not hold numbers, or a number is missing, infinite, too large for
        single precision, or not above 0 where it has to be.
    """
    values = obs_column(adata, key)
    kind = values.dtype
    if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
        raise InvalidDataError(
            f"Expected numbers in adata.obs['{key}']; got values of type {kind}, first "
            f"{to_python_scalar(values.iloc[0])!r} in cell '{adata.obs_names[0]}'. Convert them "
            "with "
            f"adata.obs['{key}'].astype(float), or pass the column as a categorical covariate."
        )
    raise_if_missing(adata, key, values.isna().to_numpy())
    with np.errstate(over="ignore"):
        found = values.to_numpy(dtype=np.float64).astype(np.float32)
    wrong = ~np.isfinite(found)
    raise_if_any(adata, key, wrong, found, "finite numbers")
    if positive:
        raise_if_any(adata, key, found <= 0, found, "numbers above 0")
    return found


def raise_if_any(
    adata: AnnData, key: str, wrong: NDArray[np.bool_], found: NDArray[np.float32], expected: str
) -> None:
    """Raise if any number of a column is wrong, naming the first cells."""
    if wrong.any():
        values = ", ".join(f"{value:g}" for value in found[wrong][:3])
        raise InvalidDataError(
            f"Expected {expected} in adata.obs['{key}']; "
            f"got {count_noun(int(wrong.sum()), 'other')} ({values}) in cells "
            f"{quote_names([*adata.obs_names[wrong]])}. Correct them or leave these cells out."
        )


def raise_if_missing(adata: AnnData, key: str, missing: NDArray[np.bool_]) -> None:
    """Raise if any value of a column is missing, naming the first cells."""
    if missing.any():
        raise InvalidDataError(
            f"Expected a value for every cell in adata.obs['{key}']; got {int(missing.sum()):,} "
            f"missing, in cells {quote_names([*adata.obs_names[missing]])}. Fill them, or leave "
            "these "
            f"cells out: adata[adata.obs['{key}'].notna()].copy()."
        )
