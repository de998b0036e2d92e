"""Options that people type: dataclasses whose values are checked against their annotations."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar

from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean

T = TypeVar("T")

KINDS: Mapping[object, str] = types.MappingProxyType(
    {
        type(None): "None",
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        tuple: "a tuple",
        Mapping: "a dictionary",
        Callable: "a function",
    }
)
"""What a type is called in a message."""


def option(
    default: Any = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
) -> Any:
    """Field of an options dataclass with a default and the range its numbers may have."""
    bounds = {"at_least": at_least, "at_most": at_most, "above": above}
    return dataclasses.field(
        default=default, metadata={k: v for k, v in bounds.items() if v is not None}
    )


class Options:
    """Base of options dataclasses: values are checked when one is made.

    Raises
    ------
    InvalidOptionError
        If a value is not one that the annotation and range of its field allow.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = checked(
                field.name, getattr(self, field.name), hints[field.name], field.metadata
            )
            object.__setattr__(self, field.name, value)


def from_words(cls: type[T], words: Mapping[str, Any], caller: str) -> T:
    """Options made from the keywords that a caller got.

    Raises
    ------
    UnknownOptionError
        If a keyword is not a field of the options.
    """
    check_known(words, [field.name for field in dataclasses.fields(cls)], caller)  # type: ignore[arg-type]
    return cls(**words)


def check_known(words: Collection[str], known: Collection[str], caller: str) -> None:
    """Check that every keyword is one that the caller has.

    Raises
    ------
    UnknownOptionError
        For the first that is not, with the closest name.
    """
    for word in words:
        if word not in known:
            close = did_you_mean(word, known)
            listed = "" if close else f" It has: {', '.join(sorted(known))}."
            raise UnknownOptionError(f"{caller} has no option '{word}'.{close}{listed}")


def checked(
    name: str, value: Any, hint: Any, bounds: Mapping[str, float] = types.MappingProxyType({})
) -> Any:
    """Value in the type its annotation names (a NumPy integer becomes an int).

    Raises
    ------
    InvalidOptionError
        If it is of another type, not among the choices, or out of range.
    """
    for candidate in members(hint):
        fits, converted = as_type(value, candidate)
        if fits:
            check_range(name, converted, bounds)
            return converted
    raise InvalidOptionError(
        f"Expected {name} to be {described(hint)}; got {value!r:.100}.{suggestion(value, hint)}"
    )


def members(hint: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def as_type(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits one annotation, and the value in that type."""
    origin = typing.get_origin(hint)
    truth = is_truth(value)
    if origin is Literal:
        return as_choice(value, typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None, None
    if hint is bool:
        return truth, bool(value) if truth else value
    if hint is int:
        fits = isinstance(value, numbers.Integral) and not truth
        return fits, int(value) if fits else value
    if hint is float:
        return as_float(value)
    if origin is tuple:
        fits = isinstance(value, list | tuple)
        return fits, tuple(value) if fits else value
    if hint is Any:
        return True, value
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin), value
    return isinstance(value, hint), value


def is_truth(value: Any) -> bool:
    """Whether a value is True or False, of Python or of NumPy (which is not loaded for this)."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def as_choice(value: Any, choices: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a value is one of the choices, and that choice (NumPy's text becomes text)."""
    for choice in choices:
        if isinstance(value, type(choice)) and value == choice:
            return True, choice
    return False, value


def as_float(value: Any) -> tuple[bool, Any]:
    """Whether a value is a real number that a float can hold, and that float."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False, value
    try:
        return True, float(value)
    except OverflowError:
        return False, value


def check_range(name: str, value: Any, bounds: Mapping[str, float]) -> None:
    """Check a number against the range of its field; where there is one, it has to be finite."""
    if not bounds or isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high, above = bounds.get("at_least"), bounds.get("at_most"), bounds.get("above")
    inside = (
        (isinstance(value, int) or math.isfinite(value))
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )
    if not inside:
        wanted = [f"at least {low}"] if low is not None else []
        wanted += [f"above {above}"] if above is not None else []
        wanted += [f"at most {high}"] if high is not None else []
        wanted += ["finite"] if isinstance(value, float) and not math.isfinite(value) else []
        raise InvalidOptionError(f"Expected {name} to be {' and '.join(wanted)}; got {value!r}.")


def described(hint: Any) -> str:
    """Words for what an annotation allows."""
    words: list[str] = []
    for candidate in members(hint):
        kind = typing.get_origin(candidate) or candidate
        if kind is Literal:
            words += [repr(choice) for choice in typing.get_args(candidate)]
        else:
            words.append(KINDS.get(kind) or str(getattr(kind, "__name__", kind)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def suggestion(value: Any, hint: Any) -> str:
    """Sentence naming the choice closest to a mistyped one."""
    if not isinstance(value, str):
        return ""
    literals = [h for h in members(hint) if typing.get_origin(h) is Literal]
    choices = [choice for h in literals for choice in typing.get_args(h)]
    return did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
