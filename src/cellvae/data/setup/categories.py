"""Values of categories: the type they have in a column, how a file writes them, how they are found.

A category keeps the type that it has in `adata.obs`. JSON has text, numbers and truth values;
other values are written as an object with the name of their type, such as
`{"type": "timestamp", "value": "2024-03-01T00:00:00"}`.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.errors import FileFormatError, did_you_mean, quote_names

Scalar: TypeAlias = Hashable
"""Category: text, a number, a truth value, bytes, a date or time, an interval, a tuple of these."""

MAX_DEPTH = 8
"""Levels of tuples and intervals inside each other that a file may have."""


def to_python_scalar(value: object) -> Scalar:
    """Category in the type that Python or pandas has for it; NumPy's scalars become these.

    Values of types that a file cannot hold, such as members of an Enum, become text.
    """
    # NumPy counts its durations among the whole numbers.
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


def to_json(value: Scalar) -> object:
    """Value of a category for JSON."""
    match value:
        case str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else tagged_json("float", repr(value))
        case bytes():
            return tagged_json("bytes", value.hex())
        case tuple():
            return tagged_json("tuple", [to_json(item) for item in value])
        case pd.Interval():
            ends = [to_json(value.left), to_json(value.right)]
            return tagged_json("interval", ends) | {"closed": value.closed}
        case pd.Timestamp():
            return (
                tagged_json("timestamp", value.isoformat())
                | {"unit": value.unit}
                | time_zone_name(value)
            )
        case pd.Timedelta():
            n_units = int(value.to_timedelta64().astype(int))
            return tagged_json("timedelta", n_units) | {"unit": value.unit}
        case pd.Period():
            return tagged_json("period", int(value.ordinal)) | {"freq": value.freqstr}
        case datetime.date():
            return tagged_json("date", value.isoformat())
        case datetime.time():
            return tagged_json("time", value.isoformat())
        case Decimal():
            return tagged_json("decimal", str(value))
    raise TypeError(f"Expected a category that a file can hold; got {value!r}.")


def tagged_json(kind: str, value: object) -> dict[str, object]:
    """Object that says the type of a value."""
    return {"type": kind, "value": value}


def time_zone_name(value: pd.Timestamp) -> dict[str, str]:
    """Name of the time zone, where it has one; the offset is in the ISO text."""
    try:
        value.tz_convert(str(value.tz))
    except (TypeError, ValueError, KeyError):
        return {}
    return {"zone": str(value.tz)}


def timestamp_from(value: Any, unit: Any, zone: Any = None) -> pd.Timestamp:
    """Timestamp from its ISO text."""
    found = pd.Timestamp(check_string(value)).as_unit(check_time_unit(unit))
    if zone is not None:
        found = found.tz_convert(check_string(zone))
    # Words such as "now" are times, too.
    if found.isoformat() != value:
        raise ValueError(f"{value!r} is not the ISO text of a time")
    return found


def interval_from(value: Any, closed: Any, depth: int) -> pd.Interval:
    """Interval from its ends."""
    left, right = (from_json(item, depth + 1) for item in value)
    return pd.Interval(left, right, check_string(closed))


def check_string(value: Any) -> Any:
    """Text, refused where it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def check_time_unit(value: Any) -> Any:
    """Unit of time that pandas counts in, refused where it is none."""
    if value not in ("s", "ms", "us", "ns"):
        raise ValueError(f"{value!r} is not a unit of time")
    return value


def check_integer(value: Any) -> int:
    """Whole number, refused where it is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


READERS: Mapping[str, Callable[..., Scalar]] = MappingProxyType(
    {
        "float": lambda value: float(check_string(value)),
        "bytes": lambda value: bytes.fromhex(check_string(value)),
        "timestamp": timestamp_from,
        "timedelta": lambda value, unit: pd.Timedelta(
            np.timedelta64(check_integer(value), check_time_unit(unit))
        ),
        "period": lambda value, freq: pd.Period(
            ordinal=check_integer(value), freq=check_string(freq)
        ),
        "date": lambda value: datetime.date.fromisoformat(check_string(value)),
        "time": lambda value: datetime.time.fromisoformat(check_string(value)),
        "decimal": lambda value: Decimal(check_string(value)),
    }
)
"""Functions that make a value of its entries in a file, by the name of its type."""


def from_json(value: object, depth: int = 0) -> Scalar:
    """Value of a category from JSON.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        raise ValueError(repr(value))
    entries = dict(value)
    kind = entries.pop("type", None)
    try:
        if kind == "tuple":
            items = entries.pop("value")
            if entries or not isinstance(items, list | tuple):
                raise ValueError(repr(value))
            return tuple(from_json(item, depth + 1) for item in items)
        if kind == "interval":
            return interval_from(**entries, depth=depth)
        if not isinstance(kind, str) or kind not in READERS:
            raise ValueError(f"a value of type {kind!r}")
        return READERS[kind](**entries)
    except (TypeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"{value!r} ({error})") from error


def categories_from_json(values: list[object], where: str) -> tuple[Scalar, ...]:
    """Categories as they were written, no two alike.

    Raises
    ------
    FileFormatError
        If a value is none that a category can have, if two are alike, or if there are none.
    """
    kept: list[Scalar] = []
    for value in values:
        try:
            kept.append(from_json(value))
        except ValueError as error:
            raise FileFormatError(
                f"Expected text, numbers, truth values or objects that name a type in {where}; "
                f"got {error!s:.200}."
            ) from error
    if not kept or len(set(kept)) < len(kept):
        raise FileFormatError(
            f"Expected categories in {where}, no two alike; got {quote_names(kept) or 'none'}."
        )
    return tuple(kept)


class CategoryCodes:
    """Codes of the known categories.

    Parameters
    ----------
    known
        Categories in the order of their codes.
    """

    def __init__(self, known: Sequence[Scalar]) -> None:
        self.codes = {value: code for code, value in enumerate(known)}

    def find(self, value: object) -> int | None:
        """Code of a value; None if it is not known.

        Version 0.1.0 wrote dates, intervals and the like as text, so they are found by it too.
        """
        key = to_python_scalar(value)
        code = self.codes.get(key)
        in_json = isinstance(key, (str, bool, int)) or (
            isinstance(key, float) and math.isfinite(key)
        )
        return self.codes.get(str(key)) if code is None and not in_json else code


def requested_values(requested: object, known: Iterable[Scalar]) -> list[Any]:
    """Values that an argument asks for: one, or several in a list.

    A tuple or bytes that is a known value counts as one.
    """
    if isinstance(requested, (str, bytes)) or not isinstance(requested, Iterable):
        return [requested]
    if isinstance(requested, tuple) and to_python_scalar(requested) in set(known):
        return [requested]
    return [*requested]


class UnknownValues(NamedTuple):
    """Parts of a message about values that are not known."""

    expected: str
    """Known values."""
    got: str
    """Values in their place."""
    advice: str
    """Sentence with the closest known value, or with the type to give it as; may be empty."""


def unknown_values(
    unknown: Sequence[object], known: Sequence[Scalar], most: int = 5
) -> UnknownValues:
    """Known and unknown values for a message.

    Types are named where values look alike or are of another type than all that are known.
    """
    own = [to_python_scalar(value) for value in unknown]
    alike = [value for value in known if str(value) == str(own[0])]
    advice = (
        f" Give it as {type_names(alike)}." if alike else did_you_mean(str(own[0]), map(str, known))
    )
    return UnknownValues(quote_with_type(known, own, most), quote_with_type(own, known), advice)


def quote_with_type(values: Sequence[object], others: Sequence[object], most: int = 5) -> str:
    """Values quoted for a message, with their types where text alone would not tell them apart."""
    alike = set(map(str, values)) & set(map(str, others))
    apart = {type(value) for value in values}.isdisjoint(type(value) for value in others)
    shown = quote_names(values, most)
    return f"{shown} as {type_names(values)}" if others and (alike or apart) else shown


def type_names(values: Iterable[object]) -> str:
    """Names of the types of values: "int", "int or str"."""
    return " or ".join(dict.fromkeys(type(value).__name__ for value in values))


def as_index(values: Sequence[Scalar]) -> pd.Index:
    """Index of values; tuples are single values in it."""
    return pd.Index([*values], tupleize_cols=False)


def as_array(values: Sequence[Scalar]) -> NDArray[Any]:
    """Array of values, each as it is: of objects unless all are text, numbers or dates.

    Truth values and numbers keep NumPy's types, dates and durations those of pandas' columns.
    """
    kinds = {type(value) for value in values}
    if kinds in ({str}, {int}, {float}, {bool}):
        try:
            return np.asarray(values)
        except OverflowError:
            pass
    elif kinds in ({pd.Timestamp}, {pd.Timedelta}):
        return as_index(values).to_numpy()
    return object_array(values)


def object_array(values: Sequence[Scalar]) -> NDArray[np.object_]:
    """Array of objects; a tuple is one of them."""
    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        found[place] = value
    return found


def scvi_categories_array(values: Sequence[Scalar]) -> NDArray[Any]:
    """Array of categories as scvi-tools keeps it: of dates and durations, else of objects."""
    found = as_array(values)
    return found if found.dtype.kind in "mM" else object_array(values)


def constant_column(value: Scalar, index: pd.Index) -> pd.Series:
    """Column with the same value everywhere, in the type that pandas has for it."""
    if isinstance(value, tuple):
        return pd.Series(object_array([value] * len(index)), index=index)
    return pd.Series([value] * len(index), index=index)
