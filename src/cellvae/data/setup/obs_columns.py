"""Columns of `adata.obs`, checked and converted to category codes or continuous values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellvae.data.setup.categories import (
    CategoryCodes,
    Scalar,
    quote_with_type,
    to_python_scalar,
    unknown_values,
)
from cellvae.data.setup.tables.cells import check_is_cells
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
        If there is no column of this name.
    InvalidDataError
        If there are several.
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
    """Column as a pandas categorical; existing categories keep their order.

    With `complete`, missing values are refused.

    Raises
    ------
    InvalidDataError
        If the value of a cell is missing, or values such as lists cannot be categories.
    """
    try:
        values = obs_column(adata, key)
        # pandas has no index, and so no categories, of these dtypes.
        replacements = {"float16": "float32", "longdouble": "float64", "float128": "float64"}
        values = values.astype(replacements.get(str(values.dtype), values.dtype))
        values = values.astype("category")
    except TypeError as error:
        raise InvalidDataError(
            f"Expected values in adata.obs['{key}'] that can be compared (strings, numbers, dates, "
            f"tuples); got others: {error}. Convert them with adata.obs['{key}'].astype(str)."
        ) from error
    if complete:
        raise_if_missing(adata, key, values.isna().to_numpy())
    return values


def column_categories(adata: AnnData, key: str) -> tuple[Scalar, ...]:
    """Categories of a column, in the order of pandas, including unused ones."""
    return python_categories([*to_categorical(adata, key).cat.categories], key)


def python_categories(values: Sequence[object], key: str) -> tuple[Scalar, ...]:
    """Categories as Python scalars, of the types that files hold.

    Raises
    ------
    InvalidDataError
        If two of them are converted to the same one, such as an object and its string.
    """
    categories = tuple(map(to_python_scalar, values))
    if len(set(categories)) < len(categories):
        repeated = sorted({str(c) for c in categories if categories.count(c) > 1})
        raise InvalidDataError(
            f"Expected different categories in adata.obs['{key}']; got several objects whose "
            f"string is {quote_names(repeated)}. Convert them with adata.obs['{key}'].astype(str)."
        )
    return categories


def label_text(adata: AnnData, key: str, label: object) -> object:
    """String of a label as the column has it, by which labels are compared.

    A label matches an equal value of the column: -1 gives "-1.0" if the column has floats.
    """
    value = to_python_scalar(label)
    check_is_cells(adata)
    if isinstance(value, str):
        return label
    if key in adata.obs:
        for category in to_categorical(adata, key, complete=False).cat.categories:
            if to_python_scalar(category) == value:
                return str(to_python_scalar(category))
    return str(value)


def label_categories(adata: AnnData, key: str, unlabeled: str) -> tuple[Scalar, ...]:
    """Labels of a column, with the unlabelled category last.

    It is swapped with the last category, as in scvi-tools, so that weights can be exchanged; it is
    appended if the column does not have it.
    """
    values = to_categorical(adata, key, complete=False)
    labels = [*python_categories([*values.cat.categories], key)]
    strings = [str(label) for label in labels]
    if unlabeled not in strings:
        return (*labels, unlabeled)
    position = strings.index(unlabeled)
    labels[position], labels[-1] = labels[-1], labels[position]
    return tuple(labels)


def category_codes(
    adata: AnnData, key: str, known: tuple[Scalar, ...], *, missing: int | None = None
) -> NDArray[np.int64]:
    """Code of each cell's category among the known ones, [cells].

    Categories are matched by value; their order in this AnnData does not matter. Cells with a
    missing value have the code `missing`; if it is None, missing values are refused.

    Raises
    ------
    DataMismatchError
        If a cell has a category that is not known.
    """
    values = to_categorical(adata, key, complete=missing is None)
    own_categories = [to_python_scalar(value) for value in values.cat.categories]
    lookup = CategoryCodes(known)
    known_codes = [lookup.find(value) for value in own_categories]
    translated = np.array([-1 if c is None else c for c in known_codes], dtype=np.int64)
    own_codes = values.cat.codes.to_numpy()
    # pandas gives missing values the code -1, which selects the appended last entry.
    codes = np.append(translated, -1 if missing is None else missing)[own_codes]
    if (codes < 0).any():
        n_cells = np.bincount(own_codes[own_codes >= 0], minlength=len(own_categories))
        unknown = [c for c, code in zip(own_categories, translated, strict=True) if code < 0]
        counts = n_cells[translated < 0]
        unknown = [value for value, n in zip(unknown, counts, strict=True) if n]
        message = unknown_values(unknown, known)
        raise DataMismatchError(
            f"Expected categories that the model knows in adata.obs['{key}'] "
            f"({message.expected}); got {message.got} in {int(counts.sum()):,} cells."
            f"{message.advice} Leave these cells out, or correct the column."
        )
    return codes


def numeric_column(adata: AnnData, key: str, *, positive: bool = False) -> NDArray[np.float32]:
    """Continuous value of each cell in single precision, [cells].

    Raises
    ------
    InvalidDataError
        If the column is not numeric, or a value is missing, infinite, too large for single
        precision, or not above 0 with `positive`.
    """
    values = obs_column(adata, key)
    dtype = values.dtype
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        raise InvalidDataError(
            f"Expected numbers in adata.obs['{key}']; got values of type {dtype}, first "
            f"{to_python_scalar(values.iloc[0])!r} in cell '{adata.obs_names[0]}'. Convert them "
            f"with adata.obs['{key}'].astype(float), or pass the column as a categorical covariate."
        )
    raise_if_missing(adata, key, values.isna().to_numpy())
    with np.errstate(over="ignore"):
        numbers = values.to_numpy(dtype=np.float64).astype(np.float32)
    raise_if_any(adata, key, ~np.isfinite(numbers), numbers, "finite numbers")
    if positive:
        raise_if_any(adata, key, numbers <= 0, numbers, "numbers above 0")
    return numbers


def raise_if_any(
    adata: AnnData,
    key: str,
    invalid: NDArray[np.bool_],
    numbers: NDArray[np.float32],
    expected: str,
) -> None:
    """Raise if any value of a column is invalid; the message names the first cells."""
    if invalid.any():
        values = ", ".join(f"{value:g}" for value in numbers[invalid][:3])
        raise InvalidDataError(
            f"Expected {expected} in adata.obs['{key}']; "
            f"got {count_noun(int(invalid.sum()), 'other')} ({values}) in cells "
            f"{quote_names([*adata.obs_names[invalid]])}. Correct them or leave these cells out."
        )


def raise_if_missing(adata: AnnData, key: str, missing: NDArray[np.bool_]) -> None:
    """Raise if any value of a column is missing; the message names the first cells."""
    if missing.any():
        raise InvalidDataError(
            f"Expected a value for every cell in adata.obs['{key}']; got {int(missing.sum()):,} "
            f"missing, in cells {quote_names([*adata.obs_names[missing]])}. Fill them, or leave "
            f"these cells out: adata[adata.obs['{key}'].notna()].copy()."
        )


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
