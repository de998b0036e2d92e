"""Categories of a column of `adata.obs`: their types, their codes, and messages about them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.errors import did_you_mean, quote_names

Scalar: TypeAlias = Hashable
"""Category: a string, number, boolean, bytes, date or time, interval, or a tuple of these."""


def to_python_scalar(value: object) -> Scalar:
    """Category as a Python or pandas scalar, converted from NumPy's scalars.

    Values of types that a file cannot hold, such as members of an Enum, become strings.
    """
    # np.timedelta64 is a subclass of np.signedinteger, so it is checked before the integers.
    if isinstance(value, (datetime.timedelta, np.timedelta64)):
        return pd.Timedelta(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, (datetime.datetime, np.datetime64)):
        return pd.Timestamp(value)
    if type(value) is tuple:
        return tuple(map(to_python_scalar, value))
    if isinstance(value, pd.Interval):
        return pd.Interval(
            to_python_scalar(value.left), to_python_scalar(value.right), value.closed
        )
    if isinstance(value, (pd.Period, datetime.date, datetime.time, Decimal)):
        return value
    return str(value)


class CategoryCodes:
    """Lookup of the codes of known categories.

    Parameters
    ----------
    known
        Categories in the order of their codes.
    """

    def __init__(self, known: Sequence[Scalar]) -> None:
        self.codes = {category: code for code, category in enumerate(known)}

    def find(self, value: object) -> int | None:
        """Code of a value; None if it is not a known category.

        Version 0.1.0 saved dates, intervals and the like as strings, so those match too.
        """
        key = to_python_scalar(value)
        code = self.codes.get(key)
        in_json = isinstance(key, (str, bool, int)) or (
            isinstance(key, float) and math.isfinite(key)
        )
        return self.codes.get(str(key)) if code is None and not in_json else code


def requested_values(requested: object, known: Iterable[Scalar]) -> list[Any]:
    """List of the values that a user passed as one value or as several.

    A tuple counts as one value if it is a known category.
    """
    if isinstance(requested, (str, bytes)) or not isinstance(requested, Iterable):
        return [requested]
    if isinstance(requested, tuple) and to_python_scalar(requested) in set(known):
        return [requested]
    return [*requested]


class UnknownValues(NamedTuple):
    """Parts of an error message about values that are not known categories."""

    expected: str
    """The known categories."""
    got: str
    """The unknown values."""
    advice: str
    """Sentence with the closest known category, or the type to convert to; may be empty."""


def unknown_values(
    unknown: Sequence[object], known: Sequence[Scalar], most: int = 5
) -> UnknownValues:
    """Parts of an error message: the known categories, the unknown values, and advice.

    Types are named where values have equal strings, or where no type is common to both.
    """
    values = [to_python_scalar(value) for value in unknown]
    first = str(values[0])
    same_string = [category for category in known if str(category) == first]
    advice = (
        f" Give it as {type_names(same_string)}."
        if same_string
        else did_you_mean(first, map(str, known))
    )
    return UnknownValues(
        quote_with_type(known, values, most), quote_with_type(values, known), advice
    )


def quote_with_type(values: Sequence[object], others: Sequence[object], most: int = 5) -> str:
    """Values quoted for a message, with their types if those distinguish them from `others`."""
    same_strings = set(map(str, values)) & set(map(str, others))
    no_common_type = {type(value) for value in values}.isdisjoint(map(type, others))
    quoted = quote_names(values, most)
    return (
        f"{quoted} as {type_names(values)}"
        if others and (same_strings or no_common_type)
        else quoted
    )


def type_names(values: Iterable[object]) -> str:
    """Names of the types of values, such as "int" or "int or str"."""
    return " or ".join(dict.fromkeys(type(value).__name__ for value in values))


def as_index(values: Sequence[Scalar]) -> pd.Index:
    """Index of categories; a tuple is a single entry, not a row of a MultiIndex."""
    return pd.Index([*values], tupleize_cols=False)


def as_array(values: Sequence[Scalar]) -> NDArray[Any]:
    """Array of categories: of a dtype of NumPy if they have one type that it has a dtype for.

    That is so for strings, numbers, booleans, dates and durations; otherwise they are objects.
    """
    types = {type(value) for value in values}
    if types in ({str}, {int}, {float}, {bool}):
        try:
            return np.asarray(values)
        except OverflowError:
            pass
    elif types in ({pd.Timestamp}, {pd.Timedelta}):
        return as_index(values).to_numpy()
    return object_array(values)


def object_array(values: Sequence[Scalar]) -> NDArray[np.object_]:
    """One-dimensional array of objects; a tuple is a single entry."""
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array


def scvi_categories_array(values: Sequence[Scalar]) -> NDArray[Any]:
    """Array of categories as scvi-tools stores it: of dates or durations, else of objects."""
    array = as_array(values)
    return array if array.dtype.kind in "mM" else object_array(values)


def constant_column(value: Scalar, index: pd.Index) -> pd.Series:
    """Column that repeats one value, in the dtype that pandas infers for it."""
    if isinstance(value, tuple):
        return pd.Series(object_array([value] * len(index)), index=index)
    return pd.Series([value] * len(index), index=index)
