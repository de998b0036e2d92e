"""Values checked against annotations: whether one fits, converted, and how to describe both."""

from __future__ import annotations

import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any, Literal

from cellvae.errors import did_you_mean

CONTAINERS = (list, tuple, set, frozenset, Sequence, Collection, Set)
"""Generic types whose elements are all checked against one annotation."""
TYPE_NAMES: Mapping[object, str] = types.MappingProxyType(
    {
        type(None): "None",
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "a string",
        list: "a list",
        tuple: "a tuple",
        set: "a set",
        frozenset: "a set",
        Set: "a set",
        Collection: "a collection",
        dict: "a dictionary",
        Sequence: "a sequence",
        Mapping: "a dictionary",
        Callable: "a function",
    }
)
"""Name of a type in a message."""
TYPE_NAMES_PLURAL: Mapping[object, str] = types.MappingProxyType(
    {int: "whole numbers", float: "numbers", str: "strings"}
)
"""Name of a type in a message, for its values in the plural."""


def describe_annotation(hint: Any) -> str:
    """What an annotation allows, in English: `"a number or None"`."""
    alternatives: list[str] = []
    for candidate in union_members(hint):
        base = typing.get_origin(candidate) or candidate
        inner = [arg for arg in typing.get_args(candidate) if arg not in (Ellipsis, Any)]
        if base is Literal:
            alternatives += [repr(choice) for choice in typing.get_args(candidate)]
        elif base in CONTAINERS and len(set(inner)) == 1:
            alternatives.append(f"{TYPE_NAMES[base]} of {describe_elements(inner[0])}")
        elif base in (dict, Mapping) and len(inner) == 2:
            keys, values = map(describe_elements, inner)
            alternatives.append(f"{TYPE_NAMES[base]} from {keys} to {values}")
        else:
            alternatives.append(TYPE_NAMES.get(base) or str(getattr(base, "__name__", base)))
    if len(alternatives) == 1:
        return alternatives[0]
    return f"{', '.join(alternatives[:-1])} or {alternatives[-1]}"


def describe_elements(hint: Any) -> str:
    """What the annotation of a container's elements allows, in the plural where there is one."""
    return TYPE_NAMES_PLURAL.get(hint) or describe_annotation(hint)


def describe_value(value: Any, length: int = 100) -> str:
    """`repr` of a value, cut to a length; the size of an integer too long for Python to print."""
    try:
        return repr(value)[:length]
    except ValueError:
        return f"{type(value).__name__} with an integer of more than 4,300 digits"


def is_too_large(value: Any) -> bool:
    """Whether a value is an integer beyond the range of a float."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        return False
    return not convert_to_float(value)[0]


def suggest_choice(value: Any, hint: Any) -> str:
    """Sentence that names the choice closest to a mistyped one; empty without one."""
    if not isinstance(value, str):
        return ""
    literals = [h for h in union_members(hint) if typing.get_origin(h) is Literal]
    choices = [choice for h in literals for choice in typing.get_args(h)]
    return did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])


def union_members(hint: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def convert_to_type(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits one annotation, and the value in that type."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return match_choice(value, typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None, None
    if hint is bool:
        return is_bool(value), bool(value) if is_bool(value) else value
    if hint is int:
        return convert_to_int(value)
    if hint is float:
        return convert_to_float(value)
    if origin in (list, tuple):
        return convert_elements(value, origin, typing.get_args(hint))
    if origin in (Sequence, Collection, Set, set, frozenset):
        if not isinstance(value, origin) or isinstance(value, str):
            return False, value
        return all(convert_to_any(v, typing.get_args(hint)[0])[0] for v in value), value
    if origin is not None and isinstance(value, Mapping) and issubclass(origin, Mapping):
        return convert_items(value, *typing.get_args(hint))
    if hint is Any:
        return True, value
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin), value
    return isinstance(value, hint), value


def is_bool(value: Any) -> bool:
    """Whether a value is True or False, of Python or of NumPy (which is not imported here)."""
    cls = type(value)
    return cls is bool or (cls.__module__ == "numpy" and cls.__name__ in ("bool", "bool_"))


def match_choice(value: Any, choices: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a value is one of the choices, and that choice (a NumPy string becomes a str)."""
    for choice in choices:
        if isinstance(value, type(choice)) and value == choice:
            return True, choice
    return False, value


def convert_to_int(value: Any) -> tuple[bool, Any]:
    """Whether a value is a whole number (10.0 is one, True is not), and that number as an int."""
    fits, number = convert_to_float(value)
    whole = fits and not is_bool(value) and math.isfinite(number) and number.is_integer()
    return whole, int(value) if whole else value


def convert_elements(
    value: Any, container: type, elements: tuple[Any, ...]
) -> tuple[bool, list[Any] | tuple[Any, ...] | Any]:
    """Whether a list or tuple fits its annotation, and a copy with converted elements.

    A list is accepted for a tuple. `tuple[int]` means the same as `tuple[int, ...]`; a tuple of
    several types has as many elements as types.
    """
    if container is tuple and hasattr(value, "tolist"):
        value = value.tolist()  # an array of NumPy or torch, which are not imported here
    allowed = list | tuple if container is tuple else list
    if not isinstance(value, allowed):
        return False, value
    hints = [hint for hint in elements if hint is not Ellipsis] or [Any]
    if len(hints) > 1 and len(value) != len(hints):
        return False, value
    hints = hints if len(hints) > 1 else hints * len(value)
    pairs = [convert_to_any(element, hint) for element, hint in zip(value, hints, strict=True)]
    return all(fits for fits, _ in pairs), container(converted for _, converted in pairs)


def convert_items(
    value: Mapping[Any, Any], key_hint: Any, value_hint: Any
) -> tuple[bool, Mapping[Any, Any]]:
    """Whether a dictionary fits its annotation, and a copy with converted keys and values."""
    items = [(convert_to_any(k, key_hint), convert_to_any(v, value_hint)) for k, v in value.items()]
    return (
        all(key[0] and item[0] for key, item in items),
        {key[1]: item[1] for key, item in items},
    )


def convert_to_any(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits one of the alternatives of an annotation, and it in that type."""
    for candidate in union_members(hint):
        fits, converted = convert_to_type(value, candidate)
        if fits:
            return True, converted
    return False, value


def convert_to_float(value: Any) -> tuple[bool, Any]:
    """Whether a value is a real number that a float can hold, and that float."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False, value
    try:
        return True, float(value)
    except OverflowError:
        return False, value
