"""Options of users: dataclasses and arguments whose values are checked against annotations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from cellvae.core.annotations import (
    convert_to_type,
    describe_annotation,
    describe_value,
    is_too_large,
    suggest_choice,
    union_members,
)
from cellvae.errors import InvalidOptionError, UnknownOptionError, did_you_mean

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def option(
    default: Any = dataclasses.MISSING,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
) -> Any:
    """Field of an options dataclass, with a default and the range of its numbers."""
    bounds = {"at_least": at_least, "at_most": at_most, "above": above}
    return dataclasses.field(
        default=default, metadata={k: v for k, v in bounds.items() if v is not None}
    )


class Options:
    """Base class of options dataclasses: values are checked at construction.

    Raises
    ------
    InvalidOptionError
        If a value does not fit the annotation or the range of its field.
    """

    def __post_init__(self) -> None:
        hints = field_annotations(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = check_value(
                field.name, getattr(self, field.name), hints[field.name], field.metadata
            )
            object.__setattr__(self, field.name, value)


@functools.lru_cache(maxsize=256)
def field_annotations(cls: type[Options]) -> Mapping[str, Any]:
    """Annotations of the fields of an options class, by their names."""
    return types.MappingProxyType(typing.get_type_hints(cls))


def from_kwargs(cls: type[T], kwargs: Mapping[str, Any], caller: str) -> T:
    """Options of a class from the keyword arguments of a caller.

    Raises
    ------
    UnknownOptionError
        If a keyword is not a field of the options.
    """
    check_kwargs(kwargs, [field.name for field in dataclasses.fields(cls)], caller)  # type: ignore[arg-type]
    return cls(**kwargs)


def check_kwargs(kwargs: Collection[str], known: Collection[str], caller: str) -> None:
    """Check that a caller has every keyword argument.

    Raises
    ------
    UnknownOptionError
        For the first that it does not have, with the closest name; also for a name that is no
        string.
    """
    for name in kwargs:
        if not isinstance(name, str):
            raise UnknownOptionError(f"Expected names of options of {caller}; got {name!r:.100}.")
        if name not in known:
            suggestion = did_you_mean(name, known)
            listed = "" if suggestion else f" It has: {', '.join(sorted(known))}."
            raise UnknownOptionError(f"{caller} has no option '{name}'.{suggestion}{listed}")


def check_value(
    name: str, value: Any, hint: Any, bounds: Mapping[str, float] = types.MappingProxyType({})
) -> Any:
    """Value converted to the type of its annotation (a NumPy integer becomes an int).

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
    expected = describe_annotation(hint)
    if is_too_large(value):
        raise InvalidOptionError(
            f"Expected {name} to be {expected}; got an integer of "
            f"{int(value).bit_length()} bits, which is too large."
        )
    raise InvalidOptionError(
        f"Expected {name} to be {expected}; got {describe_value(value)}."
        f"{suggest_choice(value, hint)}"
    )


def check_arguments(*skipped: str, only: Collection[str] = ()) -> Callable[[F], F]:
    """Decorator that checks the arguments of a function against its annotations.

    Arguments whose annotations are imported for type checkers only are not checked.

    Parameters
    ----------
    *skipped
        Arguments that the function checks itself, with a message of its own.
    only
        Arguments to check; by default all.
    """
    return functools.partial(with_checked_arguments, skipped=skipped, only=only)


def with_checked_arguments(function: F, skipped: Collection[str], only: Collection[str]) -> F:
    """Function that checks and converts its arguments, except the skipped ones, at each call."""
    signature = inspect.signature(function)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    single = {name for name, p in signature.parameters.items() if p.kind not in variable}
    single = single.intersection(only) if only else single

    @functools.cache
    def hints() -> dict[str, Any]:
        resolved: dict[str, Any] = {}
        for name in single.difference(skipped).intersection(function.__annotations__):
            annotation = function.__annotations__[name]
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            with contextlib.suppress(NameError, TypeError):
                resolved |= typing.get_type_hints(holder, globalns=function.__globals__)
        return resolved

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


def check_range(name: str, value: Any, bounds: Mapping[str, float]) -> None:
    """Check that a number is finite and within the range of its field, if it has a range."""
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
        expected = [f"at least {low}"] if low is not None else []
        expected += [f"above {above}"] if above is not None else []
        expected += [f"at most {high}"] if high is not None else []
        expected += ["finite"] if isinstance(value, float) and not math.isfinite(value) else []
        raise InvalidOptionError(f"Expected {name} to be {' and '.join(expected)}; got {value!r}.")
