"""Plain copies of nested values: dictionaries, lists, strings, numbers, booleans and None."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

ARRAY = "__array__"
"""Key that marks an array in JSON; the other keys are its type and shape."""
OMITTED: Any = object()
"""Converted value of what is left out."""

Convert = Callable[[Any, str], Any]
"""Function of a value that is not plain, and of where it is, that returns a plain one."""


class NotPlainError(TypeError):
    """A value that has no plain copy."""


def jsonable(
    value: Any,
    convert: Convert,
    *,
    where: str = "",
    sequences: tuple[type, ...] = (list, tuple),
    string_keys: bool = True,
) -> Any:
    """Copy of nested mappings and sequences as dictionaries and lists.

    Parameters
    ----------
    value
        Value of any type.
    convert
        Returns the plain copy of a value that is neither container nor plain; :data:`OMITTED`
        removes the value from its container.
    where
        Name of the value, to which the keys of mappings are added: `"optimizer.state.0"`.
    sequences
        Types that become lists.
    string_keys
        Whether keys become strings, as JSON requires.
    """
    copy = partial(jsonable, convert=convert, sequences=sequences, string_keys=string_keys)
    if isinstance(value, Mapping):
        pairs = [(k, copy(v, where=f"{where}.{k}")) for k, v in value.items()]
        return {str(k) if string_keys else k: v for k, v in pairs if v is not OMITTED}
    if isinstance(value, sequences):
        items: Iterable[Any] = value  # type: ignore[assignment]
        return [part for item in items if (part := copy(item, where=where)) is not OMITTED]
    if value is None or type(value) in (bool, int, float, str):
        return value
    return convert(value, where)


def refuse(value: Any, where: str) -> Any:
    """Refuse a value that is not plain.

    Raises
    ------
    NotPlainError
        Always.
    """
    raise NotPlainError(f"Expected a plain value; got a {type(value).__name__} at '{where}'.")


def describe_object(value: Any, where: str) -> Any:
    """Name of a class or function, or of the class of an object."""
    if isinstance(value, bool | int | float | str):  # such as an enum
        return value
    return getattr(value, "__qualname__", None) or type(value).__name__


def to_number(value: Any) -> float | None:
    """Value as a float; None if it is not a number."""
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        return float(value)
    return None


def encode_arrays(value: Any) -> Any:
    """Value as JSON with marked arrays; :data:`OMITTED` if JSON cannot hold a part of it."""
    try:
        return jsonable(value, encode_array)
    except NotPlainError:
        return OMITTED


def encode_array(value: Any, where: str) -> Any:
    """Array or tensor as a marked list of numbers with type and shape.

    Raises
    ------
    NotPlainError
        If the value is neither an array of numbers nor a NumPy scalar.
    """
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    if isinstance(array, np.ndarray) and array.dtype.kind in "biuf":
        return {ARRAY: array.ravel().tolist(), "type": array.dtype.name, "shape": [*array.shape]}
    return value.item() if isinstance(value, np.generic) else refuse(value, where)


def decode_arrays(value: Any) -> Any:
    """Value from JSON, with arrays in place of what is marked as such."""
    if isinstance(value, dict):
        if ARRAY in value:
            return np.array(value[ARRAY], dtype=value["type"]).reshape(value["shape"])
        return {k: decode_arrays(v) for k, v in value.items()}
    return [decode_arrays(v) for v in value] if isinstance(value, list) else value
