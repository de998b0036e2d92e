"""Options that people type: dataclasses whose values are checked against their annotations."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar

from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean

T = TypeVar("T")


def option(
    default: Any = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
) -> Any:
    """Field of an options dataclass with a default and the range its numbers may have."""
    bounds = {"at_least": at_least, "at_most": at_most, "above": above}
    return dataclasses.field(default=default, metadata={k: v for k, v in bounds.items() if v is not None})


class Options:
    """Base of options dataclasses: values are checked when one is made.

    Raises
    ------
    InvalidOptionError
        If a value is not one that the annotation and range of its field allow.
    """

    def __post_init__(self) -> None:
        hints = type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = checked(field.name, getattr(self, field.name), hints[field.name], field.metadata)
            object.__setattr__(self, field.name, value)


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a class."""
    return typing.get_type_hints(cls)


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


def checked(name: str, value: Any, hint: Any, bounds: Mapping[str, float] = types.MappingProxyType({})) -> Any:
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
    raise InvalidOptionError(f"Expected {name} to be {described(hint)}; got {value!r}.{suggestion(value, hint)}")


def members(hint: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def as_type(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits one annotation, and the value in that type."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint)), value
    if hint is None or hint is type(None):
        return value is None, None
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return fits, int(value) if fits else value
    if hint is float:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return fits, float(value) if fits else value
    if origin is tuple:
        fits = isinstance(value, list | tuple)
        return fits, tuple(value) if fits else value
    if hint is Any:
        return True, value
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin), value
    return isinstance(value, hint), value


def check_range(name: str, value: Any, bounds: Mapping[str, float]) -> None:
    """Check a number against the range of its field."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    low, high, above = bounds.get("at_least"), bounds.get("at_most"), bounds.get("above")
    inside = value == value  # false for NaN alone
    if (low is not None and not value >= low) or (above is not None and not value > above):
        inside = False
    if high is not None and not value <= high:
        inside = False
    if bounds and not inside:
        wanted = [f"at least {low:g}"] if low is not None else []
        wanted += [f"above {above:g}"] if above is not None else []
        wanted += [f"at most {high:g}"] if high is not None else []
        raise InvalidOptionError(f"Expected {name} to be {' and '.join(wanted)}; got {value!r}.")


def described(hint: Any) -> str:
    """Words for what an annotation allows."""
    words = []
    for candidate in members(hint):
        if typing.get_origin(candidate) is Literal:
            words += [repr(choice) for choice in typing.get_args(candidate)]
        elif candidate is type(None):
            words.append("None")
        else:
            names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
            words.append(names.get(candidate) or getattr(candidate, "__name__", str(candidate)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def suggestion(value: Any, hint: Any) -> str:
    """Sentence naming the choice closest to a mistyped one."""
    choices = [c for h in members(hint) if typing.get_origin(h) is Literal for c in typing.get_args(h)]
    return did_you_mean(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
