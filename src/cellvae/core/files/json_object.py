"""Reader of JSON objects that checks the keys and the types of the entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from cellvae.errors import FileFormatError, quote_names

ADVICE = "Use the file that was saved."


@final
class JsonObject:
    """JSON object whose entries are read one by one, each with its type checked.

    After the last one, :meth:`refuse_unread` refuses what is left.

    Parameters
    ----------
    values
        What the JSON parser returned.
    path
        Path of the object in the document, such as `fields.batch`; empty for the document.
    file
        Name of the file, for messages.

    Raises
    ------
    FileFormatError
        From every method, if an entry is missing, unknown or of another type.
    """

    def __init__(self, values: object, path: str = "", file: str = "") -> None:
        self.path = path
        self.file = file
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise self.type_error("an object", values)
        self.unread = dict(values)

    def value(self, name: str) -> object:
        """Value of an entry, of any type; the entry then counts as read."""
        if name not in self.unread:
            raise FileFormatError(
                f"Expected an entry '{name}' in {self.location()}; got "
                f"{quote_names([*self.unread]) or 'none'}. {ADVICE}"
            )
        return self.unread.pop(name)

    def string(self, name: str) -> str:
        """Value of an entry, a string."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self.type_error("a string", value, name)
        return value

    def optional_string(self, name: str) -> str | None:
        """Value of an entry, a string or null."""
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            raise self.type_error("a string or null", value, name)
        return value

    def boolean(self, name: str) -> bool:
        """Value of an entry, a boolean."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.type_error("true or false", value, name)
        return value

    def integer(self, name: str, minimum: int = 0) -> int:
        """Value of an entry, an integer not below `minimum`."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.type_error(f"an integer of at least {minimum}", value, name)
        return value

    def list_of_values(self, name: str) -> list[object]:
        """Value of an entry, a list."""
        value = self.value(name)
        if not isinstance(value, (list, tuple)):
            raise self.type_error("a list", value, name)
        return [*value]

    def list_of_strings(self, name: str) -> tuple[str, ...]:
        """Value of an entry, a list of distinct strings."""
        values = self.list_of_values(name)
        strings = tuple(value for value in values if isinstance(value, str))
        if len(strings) < len(values):
            raise self.type_error("a list of strings", values, name)
        if len(set(strings)) < len(strings):
            raise self.type_error("a list of different strings", values, name)
        return strings

    def json_object(self, name: str) -> JsonObject:
        """Value of an entry, an object."""
        return JsonObject(self.value(name), self.path_of(name), self.file)

    def dictionary(self, name: str) -> dict[str, Any]:
        """Value of an entry, an object whose entries are not checked."""
        return self.json_object(name).unread

    def refuse_unread(self) -> None:
        """Raise an error if entries are left that have not been read."""
        if self.unread:
            raise FileFormatError(
                f"Expected no more entries in {self.location()}; got "
                f"{quote_names([*self.unread])}. {ADVICE}"
            )

    def type_error(self, expected: str, value: object, name: str = "") -> FileFormatError:
        """Error about an entry of another type than expected, or about the object itself."""
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"
        return FileFormatError(
            f"Expected {expected} in {self.location(name)}; got {shown}. {ADVICE}"
        )

    def path_of(self, name: str) -> str:
        """Path of an entry in the document; that of the object if the name is empty."""
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def location(self, name: str = "") -> str:
        """File and path of an entry, or of the object, for messages."""
        return ": ".join(part for part in (self.file, self.path_of(name)) if part)
