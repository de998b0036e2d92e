"""Entries of a JSON object, each read once and with its type checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from cellvae.errors import FileFormatError, named


@final
class Entries:
    """Reader of a JSON object that refuses unknown, missing and ill-typed entries.

    Parameters
    ----------
    values
        What the JSON parser gave.
    where
        Path of the object in the file, for messages.

    Raises
    ------
    FileFormatError
        From every method, if an entry is not what it asks for.
    """

    def __init__(self, values: object, where: str) -> None:
        self.where = where
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise self.refusal("an object", values)
        self.left = dict(values)

    def take(self, name: str) -> object:
        """Value of an entry, whatever it is; the entry then counts as read."""
        if name not in self.left:
            raise FileFormatError(
                f"Expected an entry '{name}' in {self.where}; got {named([*self.left]) or 'none'}."
            )
        return self.left.pop(name)

    def text(self, name: str) -> str:
        """Text of an entry."""
        value = self.take(name)
        if not isinstance(value, str):
            raise self.refusal("text", value, name)
        return value

    def optional_text(self, name: str) -> str | None:
        """Text of an entry, or null."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.refusal("text or null", value, name)
        return value

    def flag(self, name: str) -> bool:
        """Truth of an entry."""
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.refusal("true or false", value, name)
        return value

    def whole(self, name: str, least: int = 0) -> int:
        """Whole number of an entry, not below `least`."""
        value = self.take(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.refusal(f"a whole number of at least {least}", value, name)
        return value

    def listed(self, name: str) -> list[object]:
        """List of an entry."""
        value = self.take(name)
        if not isinstance(value, (list, tuple)):
            raise self.refusal("a list", value, name)
        return [*value]

    def texts(self, name: str) -> tuple[str, ...]:
        """List of texts of an entry, none of them twice."""
        values = self.listed(name)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) < len(values):
            raise self.refusal("a list of texts", values, name)
        if len(set(texts)) < len(texts):
            raise self.refusal("a list of different texts", values, name)
        return texts

    def entries(self, name: str) -> Entries:
        """Object of an entry."""
        return Entries(self.take(name), f"{self.where}.{name}")

    def end(self) -> None:
        """Refuse entries that nothing has read."""
        if self.left:
            raise FileFormatError(
                f"Expected no more entries in {self.where}; got {named([*self.left])}."
            )

    def refusal(self, expected: str, value: object, name: str | None = None) -> FileFormatError:
        """Error that says what an entry should have been."""
        where = self.where if name is None else f"{self.where}.{name}"
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"
        return FileFormatError(f"Expected {expected} in {where}; got {shown}.")
