"""Options that people type: dataclasses whose values are checked against their annotations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

TYPE_NAMES: Mapping[object, str] = types.MappingProxyType(
    {
        type(None): "None",
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        tuple: "a tuple",
        Sequence: "a sequence",
        Mapping: "a dictionary",
        Callable: "a function",
    }
)
"""What a type is called in a message."""
TYPE_NAMES_PLURAL: Mapping[object, str] = types.MappingProxyType(
    {int: "whole numbers", float: "numbers", str: "texts"}
)
"""What several values of a type are called in a message."""


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
            value = check_value(
                field.name, getattr(self, field.name), hints[field.name], field.metadata
            )
            object.__setattr__(self, field.name, value)


def from_kwargs(cls: type[T], kwargs: Mapping[str, Any], caller: str) -> T:
    """Options made from the keywords that a caller got.

    Raises
    ------
    UnknownOptionError
        If a keyword is not a field of the options.
    """
    check_kwargs(kwargs, [field.name for field in dataclasses.fields(cls)], caller)  # type: ignore[arg-type]
    return cls(**kwargs)


def check_kwargs(kwargs: Collection[str], known: Collection[str], caller: str) -> None:
    """Check that every keyword is one that the caller has.

    Raises
    ------
    UnknownOptionError
        For the first that is not, with the closest name; also where a name is no text.
    """
    for word in kwargs:
        if not isinstance(word, str):
            raise UnknownOptionError(f"Expected names of options of {caller}; got {word!r:.100}.")
        if word not in known:
            close = did_you_mean(word, known)
            listed = "" if close else f" It has: {', '.join(sorted(known))}."
            raise UnknownOptionError(f"{caller} has no option '{word}'.{close}{listed}")


def check_value(
    name: str, value: Any, hint: Any, bounds: Mapping[str, float] = types.MappingProxyType({})
) -> Any:
    """Value in the type its annotation names (a NumPy integer becomes an int).

    Raises
    ------
    InvalidOptionError
        If it is of another type, not among the choices, or out of range.
    """
    for candidate in union_members(hint):
        fits, converted = convert_to_type(value, candidate)
        if fits:
            check_range(name, converted, bounds)
            return converted
    raise InvalidOptionError(
        f"Expected {name} to be {describe_annotation(hint)}; got "
        f"{value!r:.100}.{suggest_choice(value, hint)}"
    )


def check_arguments(*skipped: str, only: Collection[str] = ()) -> Callable[[F], F]:
    """Decorator that checks the arguments of a function against its annotations.

    Annotations that name what is imported for type checkers only are left alone.

    Parameters
    ----------
    *skipped
        Arguments that the function checks itself, with advice of its own.
    only
        Arguments to which the check is restricted; by default all are checked.
    """
    return functools.partial(with_checked_arguments, skipped=skipped, only=only)


def with_checked_arguments(function: F, skipped: Collection[str], only: Collection[str]) -> F:
    """Function whose arguments, but for some, are checked and converted before each call."""
    signature = inspect.signature(function)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    single = {name for name, p in signature.parameters.items() if p.kind not in variable}
    single = single.intersection(only) if only else single

    @functools.cache
    def hints() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in single.difference(skipped).intersection(function.__annotations__):
            annotation = function.__annotations__[name]
            one = types.SimpleNamespace(__annotations__={name: annotation})
            with contextlib.suppress(NameError, TypeError):
                found |= typing.get_type_hints(one, globalns=function.__globals__)
        return found

    @functools.wraps(function)
    def checked_call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if (
                name in hints()
                and name not in skipped
                and kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD)
            ):
                bound.arguments[name] = check_value(name, value, hints()[name])
        return function(*bound.args, **bound.kwargs)

    return checked_call  # type: ignore[return-value]


def union_members(hint: Any) -> tuple[Any, ...]:
    """Alternatives of an annotation."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def convert_to_type(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value fits one annotation, and the value in that type."""
    origin = typing.get_origin(hint)
    truth = is_bool(value)
    if origin is Literal:
        return match_choice(value, typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None, None
    if hint is bool:
        return truth, bool(value) if truth else value
    if hint is int:
        return convert_to_int(value)
    if hint is float:
        return convert_to_float(value)
    if origin in (list, tuple):
        return convert_elements(value, origin, typing.get_args(hint))
    if origin is Sequence:
        if not isinstance(value, Sequence) or isinstance(value, str):
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
    """Whether a value is True or False, of Python or of NumPy (which is not loaded for this)."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def match_choice(value: Any, choices: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a value is one of the choices, and that choice (NumPy's text becomes text)."""
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
    """Whether a list or tuple holds what its annotation names, and it with converted elements.

    A list is taken where a tuple is expected; `tuple[int]` and `tuple[int, ...]` are alike unless
    several types are named.
    """
    if container is tuple and hasattr(value, "tolist"):
        value = value.tolist()  # an array of NumPy or torch, which are not loaded for this
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
    """Whether a dictionary holds what its annotation names, and it with converted items."""
    found = [(convert_to_any(k, key_hint), convert_to_any(v, value_hint)) for k, v in value.items()]
    return (
        all(key[0] and item[0] for key, item in found),
        {key[1]: item[1] for key, item in found},
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


def describe_annotation(hint: Any) -> str:
    """Words for what an annotation allows."""
    words: list[str] = []
    for candidate in union_members(hint):
        kind = typing.get_origin(candidate) or candidate
        inner = [arg for arg in typing.get_args(candidate) if arg not in (Ellipsis, Any)]
        if kind is Literal:
            words += [repr(choice) for choice in typing.get_args(candidate)]
        elif kind in (list, tuple, Sequence) and len(set(inner)) == 1:
            words.append(
                f"{TYPE_NAMES[kind]} of "
                f"{TYPE_NAMES_PLURAL.get(inner[0]) or describe_annotation(inner[0])}"
            )
        else:
            words.append(TYPE_NAMES.get(kind) or str(getattr(kind, "__name__", kind)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def suggest_choice(value: Any, hint: Any) -> str:
    """Sentence naming the choice closest to a mistyped one."""
    if not isinstance(value, str):
        return ""
    literals = [h for h in union_members(hint) if typing.get_origin(h) is Literal]
    choices = [choice for h in literals for choice in typing.get_args(h)]
    return did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
