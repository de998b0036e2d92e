"""JSON form of categories: how a file stores them, and how they are read back with their types.

JSON has strings, numbers and booleans; a value of another type is written as an object with the
name of its type, such as `{"type": "timestamp", "value": "2024-03-01T00:00:00"}`.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from cellvae.data.setup.categories import Scalar
from cellvae.errors import FileFormatError, quote_names

MAX_NESTING = 8
"""Levels of nested tuples and intervals that a file may have."""


def category_to_json(value: Scalar) -> object:
    """JSON value of a category.

    Raises
    ------
    TypeError
        If it is of a type that no file holds.
    """
    match value:
        case str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else tagged_json("float", repr(value))
        case bytes():
            return tagged_json("bytes", value.hex())
        case tuple():
            return tagged_json("tuple", [category_to_json(item) for item in value])
        case pd.Interval():
            ends = [category_to_json(value.left), category_to_json(value.right)]
            return tagged_json("interval", ends) | {"closed": value.closed}
        case pd.Timestamp():
            return (
                tagged_json("timestamp", value.isoformat())
                | {"unit": value.unit}
                | time_zone_json(value)
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


def tagged_json(type_name: str, value: object) -> dict[str, object]:
    """JSON object of a value and the name of its type."""
    return {"type": type_name, "value": value}


def time_zone_json(value: pd.Timestamp) -> dict[str, str]:
    """Entry with the name of the time zone, if it has one; the ISO string has the offset only."""
    try:
        value.tz_convert(str(value.tz))
    except (TypeError, ValueError, KeyError):
        return {}
    return {"zone": str(value.tz)}


def parse_timestamp(value: Any, unit: Any, zone: Any = None) -> pd.Timestamp:
    """Timestamp from its ISO string."""
    found = pd.Timestamp(check_string(value)).as_unit(check_time_unit(unit))
    if zone is not None:
        found = found.tz_convert(check_string(zone))
    # pandas also parses words such as "now".
    if found.isoformat() != value:
        raise ValueError(f"{value!r} is not the ISO string of a time")
    return found


def parse_interval(value: Any, closed: Any, depth: int) -> pd.Interval:
    """Interval from its ends."""
    left, right = (category_from_json(item, depth + 1) for item in value)
    return pd.Interval(left, right, check_string(closed))


def check_string(value: Any) -> Any:
    """The value, if it is a string; otherwise a TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def check_time_unit(value: Any) -> Any:
    """The value, if it is a unit of time of pandas; otherwise a ValueError."""
    if value not in ("s", "ms", "us", "ns"):
        raise ValueError(f"{value!r} is not a unit of time")
    return value


def check_integer(value: Any) -> int:
    """The value, if it is an integer; otherwise a TypeError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


PARSERS: Mapping[str, Callable[..., Scalar]] = MappingProxyType(
    {
        "float": lambda value: float(check_string(value)),
        "bytes": lambda value: bytes.fromhex(check_string(value)),
        "timestamp": parse_timestamp,
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
"""Parsers by the name of the type; their arguments are the other entries of the JSON object."""


def category_from_json(value: object, depth: int = 0) -> Scalar:
    """Category from its JSON value.

    Raises
    ------
    ValueError
        If it is not the JSON value of a category.
    """
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if not isinstance(value, Mapping) or depth > MAX_NESTING:
        raise ValueError(repr(value))
    entries = dict(value)
    type_name = entries.pop("type", None)
    try:
        if type_name == "tuple":
            items = entries.pop("value")
            if entries or not isinstance(items, list | tuple):
                raise ValueError(repr(value))
            return tuple(category_from_json(item, depth + 1) for item in items)
        if type_name == "interval":
            return parse_interval(**entries, depth=depth)
        if not isinstance(type_name, str) or type_name not in PARSERS:
            raise ValueError(f"a value of type {type_name!r}")
        return PARSERS[type_name](**entries)
    except (TypeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"{value!r} ({error})") from error


def categories_from_json(values: list[object], where: str) -> tuple[Scalar, ...]:
    """Categories from their JSON values, in the same order.

    Raises
    ------
    FileFormatError
        If a value is not that of a category, two are equal, or there are none.
    """
    categories: list[Scalar] = []
    for value in values:
        try:
            categories.append(category_from_json(value))
        except ValueError as error:
            raise FileFormatError(
                f"Expected strings, numbers, booleans or objects that name a type in {where}; "
                f"got {error!s:.200}."
            ) from error
    if not categories or len(set(categories)) < len(categories):
        raise FileFormatError(
            f"Expected categories in {where}, all different; got "
            f"{quote_names(categories) or 'none'}."
        )
    return tuple(categories)
