"""Callbacks as values of JSON, and rebuilt from them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cellvae.errors import FileFormatError, did_you_mean
from cellvae.train.records.jsonable import NotPlainError, jsonable, refuse


def describe_callback(callback: pl.Callback) -> dict[str, Any]:
    """Class and constructor arguments of a callback, as values of JSON.

    Other objects are described by `{"repr": ...}` and cannot be rebuilt.
    """
    arguments = {}
    for name in constructor_arguments(type(callback)):
        if name in vars(callback):
            arguments[name] = to_json_value(vars(callback)[name])
    return {"class": type(callback).__name__, "arguments": arguments}


def rebuild_callback(values: Mapping[str, Any]) -> pl.Callback:
    """Callback of the package, from its description.

    Raises
    ------
    FileFormatError
        If the class is not one of the package, or an argument cannot be rebuilt.
    """
    name, arguments = values.get("class"), values.get("arguments", {})
    known = callback_classes()
    if not isinstance(name, str) or name not in known:
        raise FileFormatError(
            f"Expected the class of a callback of cellvae.train; got {name!r}."
            f"{did_you_mean(str(name), known)}"
        )
    if not isinstance(arguments, dict):
        raise FileFormatError(f"Expected the arguments of {name} as an object; got {arguments!r}.")
    accepted = constructor_arguments(known[name])
    for argument, value in arguments.items():
        if argument not in accepted:
            raise FileFormatError(
                f"{name} has no argument '{argument[:80]}'.{did_you_mean(argument, accepted)}"
            )
        if isinstance(value, dict) and set(value) == {"repr"}:
            raise FileFormatError(
                f"The argument '{argument}' of {name} is an object of a program "
                f"({str(value['repr'])[:80]}), which a file cannot hold. Make the callback by hand."
            )
    try:
        return known[name](**arguments)
    except TypeError as error:
        raise FileFormatError(f"Expected the arguments that {name} needs: {error}") from error


def callback_classes() -> dict[str, type[pl.Callback]]:
    """Callbacks of the package, by name."""
    train = import_module("cellvae.train")
    named = {name: getattr(train, name) for name in train.__all__}
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, type) and issubclass(value, pl.Callback)
    }


def constructor_arguments(cls: type[pl.Callback]) -> list[str]:
    """Names of the constructor arguments of a callback."""
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


def to_json_value(value: Any) -> Any:
    """Value as JSON can hold it, or `{"repr": ...}` if it cannot hold a part of it."""
    sequences = (list, tuple, range, set, frozenset)
    try:
        return jsonable(value, path_as_string, sequences=sequences)
    except NotPlainError:
        return {"repr": repr(value)[:200]}


def path_as_string(value: Any, where: str) -> Any:
    """Path as a string; other values are refused.

    Raises
    ------
    NotPlainError
        If the value is no path.
    """
    return str(value) if isinstance(value, Path) else refuse(value, where)
