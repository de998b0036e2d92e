"""Reader of JSON objects that checks the type of every entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from cellvae.errors import FileFormatError, quote_names


@final
class JsonObject:
    """Reader of a JSON object that refuses unknown, missing and ill-typed entries.

    Parameters
    ----------
    values
        Value from the JSON parser.
    where
        Path of the object in the file, for messages.

    Raises
    ------
    FileFormatError
        From every method, if an entry is missing or of another type.
    """

    def __init__(self, values: object, where: str) -> None:
        self.where = where
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise self.type_error("an object", values)
        self.unread = dict(values)

    def value(self, name: str) -> object:
        """Value of an entry of any type; the entry then counts as read."""
        if name not in self.unread:
            raise FileFormatError(
                f"Expected an entry '{name}' in {self.where}; got "
                f"{quote_names([*self.unread]) or 'none'}."
            )
        return self.unread.pop(name)

    def text(self, name: str) -> str:
        """String of an entry."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self.type_error("a string", value, name)
        return value

    def optional_text(self, name: str) -> str | None:
        """String of an entry, or None for null."""
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            raise self.type_error("a string or null", value, name)
        return value

    def boolean(self, name: str) -> bool:
        """Boolean of an entry."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.type_error("true or false", value, name)
        return value

    def integer(self, name: str, least: int = 0) -> int:
        """Integer of an entry, not below `least`."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.type_error(f"an integer of at least {least}", value, name)
        return value

    def list_of_values(self, name: str) -> list[object]:
        """List of an entry."""
        value = self.value(name)
        if not isinstance(value, (list, tuple)):
            raise self.type_error("a list", value, name)
        return [*value]

    def list_of_texts(self, name: str) -> tuple[str, ...]:
        """List of strings of an entry, all different."""
        values = self.list_of_values(name)
        strings = tuple(value for value in values if isinstance(value, str))
        if len(strings) < len(values):
            raise self.type_error("a list of strings", values, name)
        if len(set(strings)) < len(strings):
            raise self.type_error("a list of different strings", values, name)
        return strings

    def json_object(self, name: str) -> JsonObject:
        """Reader of an entry that is an object."""
        return JsonObject(self.value(name), f"{self.where}.{name}")

    def refuse_unread(self) -> None:
        """Raise if an entry has not been read."""
        if self.unread:
            raise FileFormatError(
                f"Expected no more entries in {self.where}; got {quote_names([*self.unread])}."
            )

    def type_error(self, expected: str, value: object, name: str | None = None) -> FileFormatError:
        """Error for a value, or an entry, of another type than expected."""
        where = self.where if name is None else f"{self.where}.{name}"
        short = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"
        return FileFormatError(f"Expected {expected} in {where}; got {short}.")
