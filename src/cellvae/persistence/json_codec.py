"""Strict JSON: exact floats, unique keys, bounded depth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from cellvae.errors import FileFormatError, InvalidOptionError, UnsafeFileError

MAX_DEPTH = 100
"""Largest nesting depth of lists and objects."""

NON_FINITE_NAMES = ("nan", "inf", "-inf")


def dumps(value: Any) -> str:
    """JSON text of a value, indented, objects in the order of their keys.

    JSON cannot express values that are not finite. They are written `{"float": "nan"}`, and an
    object that has "float" as its only key is written `{"float": [value]}`, so that no two values
    have the same text.

    Parameters
    ----------
    value
        Dictionaries with string keys, lists, tuples (which become lists), strings, numbers, None.

    Raises
    ------
    InvalidOptionError
        If a value inside has no JSON form; the message has its path.
    """
    return json.dumps(encode(value, "", 0), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: str, where: str) -> Any:
    """Value of a JSON text.

    Parameters
    ----------
    text
        What `dumps` wrote, or a file from anywhere.
    where
        Name of the file, for messages.

    Raises
    ------
    FileFormatError
        If the text is not strict JSON: cut, a key twice, a bare NaN.
    UnsafeFileError
        If it is nested deeper than any document of this package.
    """
    try:
        value = json.loads(text, object_pairs_hook=decode, parse_constant=reject_nan_literal)
    except RecursionError:
        raise too_deep_error(where) from None
    except ValueError as error:
        raise FileFormatError(
            f"Expected strict JSON in {where}; got {error}. "
            "The file is damaged or was edited: use the file that was saved."
        ) from error
    check_depth(value, where)
    return value


def encode(value: Any, at: str, depth: int) -> Any:
    """Value in types that JSON has; `at` is its path, such as 'history.elbo[3]'."""
    if depth > MAX_DEPTH:
        raise InvalidOptionError(
            f"Expected at most {MAX_DEPTH} levels of nesting in what is saved; got more at "
            f"'{at[:60]}...'. Does a list or dict contain itself?"
        )
    if isinstance(value, float):
        number = float(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(value, str):
        return check_text(value, at)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple):
        return [encode(item, f"{at}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return encode_object(value, at, depth)
    raise InvalidOptionError(
        f"Expected text, numbers, lists and dicts in what is saved; got {type(value).__name__} at "
        f"'{at}'. Convert it to one of them (`.item()` or `.tolist()` for arrays)."
    )


def encode_object(value: Mapping[Any, Any], at: str, depth: int) -> dict[str, Any]:
    """Object with encoded values; one whose only key is "float" is set apart from a number."""
    encoded = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidOptionError(
                f"Expected text as every key of what is saved; got the {type(key).__name__} "
                f"{key!r} at '{at}'. Convert it with `str`."
            )
        check_text(key, at)
        encoded[key] = encode(item, f"{at}.{key}" if at else key, depth + 1)
    return {"float": [encoded["float"]]} if list(encoded) == ["float"] else encoded


def check_text(text: str, at: str) -> str:
    """The text, if UTF-8 can encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidOptionError(
            f"Expected text that UTF-8 can hold in what is saved; got {text!r} at '{at}', which "
            "has half of a surrogate pair. Repair the name in the data."
        ) from None
    return text


def decode(pairs: list[tuple[str, Any]]) -> Any:
    """Object of a document, or the number that it encodes."""
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{twice}' twice in one object")
    if list(decoded) != ["float"]:
        return decoded
    marked = decoded["float"]
    if isinstance(marked, str) and marked in NON_FINITE_NAMES:
        return float(marked)
    if isinstance(marked, list) and len(marked) == 1:
        return {"float": marked[0]}
    raise ValueError(f'an object {{"float": ...}} that holds none of {", ".join(NON_FINITE_NAMES)}')


def reject_nan_literal(name: str) -> Any:
    """Refuse the literals NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f'{name}, which is not JSON (written here as {{"float": ...}})')


def check_depth(value: Any, where: str) -> None:
    """Refuse what is nested deeper than `dumps` writes, level by level, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise too_deep_error(where)


def too_deep_error(where: str) -> UnsafeFileError:
    """Error for a document whose nesting could exhaust the stack."""
    return UnsafeFileError(
        f"Expected at most {MAX_DEPTH} levels of nesting in {where}; got more. "
        "No model is saved like that: do not use this file."
    )
