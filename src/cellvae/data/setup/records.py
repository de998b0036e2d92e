"""What was found in an AnnData for each field of a model, as values that JSON holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.category_json import categories_from_json, category_to_json
from cellvae.data.setup.json_reader import JsonObject
from cellvae.errors import FileFormatError, did_you_mean, quote_names


class FieldRecord(ABC):
    """What was found for one field; a subclass for each kind of field."""

    kind: ClassVar[str]

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """Values for JSON, with the kind of the record."""

    @classmethod
    @abstractmethod
    def from_json(cls, entries: JsonObject) -> FieldRecord:
        """Record from the entries of a JSON object, its kind already taken."""


@final
@dataclass(frozen=True, kw_only=True)
class CountsRecord(FieldRecord):
    """Where the counts were, and whether all were whole numbers, or only zeros and ones."""

    kind: ClassVar[str] = "counts"
    layer: str | None = None
    integers: bool
    binary: bool = False

    def to_json(self) -> dict[str, object]:
        """Values for JSON, with the kind of the record."""
        values: dict[str, object] = {"layer": self.layer, "integers": self.integers}
        further = {"binary": True} if self.binary else {}
        return {"kind": self.kind, **values, **further}

    @classmethod
    def from_json(cls, entries: JsonObject) -> CountsRecord:
        """Record from the entries of a JSON object."""
        return cls(
            layer=entries.optional_text("layer"),
            integers=entries.boolean("integers"),
            binary="binary" in entries.unread and entries.boolean("binary"),
        )


@final
@dataclass(frozen=True, kw_only=True)
class CategoryRecord(FieldRecord):
    """Categories of one column, in the order of their codes; one category where there is none.

    `unlabeled` is the category of cells whose label is not known, the last one, where there may be
    such cells.
    """

    kind: ClassVar[str] = "category"
    key: str | None = None
    categories: tuple[Scalar, ...] = (0,)
    unlabeled: Scalar | None = None

    def to_json(self) -> dict[str, object]:
        """Values for JSON, with the kind of the record."""
        values: dict[str, object] = {
            "kind": self.kind,
            "key": self.key,
            "categories": [category_to_json(value) for value in self.categories],
        }
        if self.unlabeled is None:
            return values
        return values | {"unlabeled": category_to_json(self.unlabeled)}

    @classmethod
    def from_json(cls, entries: JsonObject) -> CategoryRecord:
        """Record from the entries of a JSON object."""
        key = entries.optional_text("key")
        found = categories_from_json(
            entries.list_of_values("categories"), f"{entries.where}.categories"
        )
        if "unlabeled" not in entries.unread:
            return cls(key=key, categories=found)
        unlabeled = entries.value("unlabeled")
        if unlabeled != category_to_json(found[-1]):
            raise entries.type_error("the last category", unlabeled, "unlabeled")
        return cls(key=key, categories=found, unlabeled=found[-1])


@final
@dataclass(frozen=True, kw_only=True)
class CategoriesRecord(FieldRecord):
    """Categories of several columns, for each in the order of their codes."""

    kind: ClassVar[str] = "categories"
    keys: tuple[str, ...] = ()
    categories: tuple[tuple[Scalar, ...], ...] = ()

    def to_json(self) -> dict[str, object]:
        """Values for JSON, with the kind of the record."""
        return {
            "kind": self.kind,
            "keys": list(self.keys),
            "categories": [
                [category_to_json(value) for value in values] for values in self.categories
            ],
        }

    @classmethod
    def from_json(cls, entries: JsonObject) -> CategoriesRecord:
        """Record from the entries of a JSON object."""
        where = f"{entries.where}.categories"
        keys = entries.list_of_texts("keys")
        lists = entries.list_of_values("categories")
        if len(lists) != len(keys) or not all(
            isinstance(values, (list, tuple)) for values in lists
        ):
            raise entries.type_error(f"{len(keys)} lists", lists, "categories")
        found = (
            categories_from_json([*values], where)
            for values in lists
            if isinstance(values, (list, tuple))
        )
        return cls(keys=keys, categories=tuple(found))


@final
@dataclass(frozen=True, kw_only=True)
class NumbersRecord(FieldRecord):
    """Columns of numbers that were found complete."""

    kind: ClassVar[str] = "numbers"
    keys: tuple[str, ...] = ()
    positive: bool = False

    def to_json(self) -> dict[str, object]:
        """Values for JSON, with the kind of the record."""
        return {"kind": self.kind, "keys": list(self.keys), "positive": self.positive}

    @classmethod
    def from_json(cls, entries: JsonObject) -> NumbersRecord:
        """Record from the entries of a JSON object."""
        return cls(keys=entries.list_of_texts("keys"), positive=entries.boolean("positive"))


RECORD_TYPES: tuple[type[FieldRecord], ...] = (
    CountsRecord,
    CategoryRecord,
    CategoriesRecord,
    NumbersRecord,
)
"""Every kind of record that a file can hold."""


def record_from_json(values: object, where: str) -> FieldRecord:
    """Record of a field from the values of its JSON object.

    Raises
    ------
    FileFormatError
        If an entry is unknown, missing or of another type than it should be.
    """
    entries = JsonObject(values, where)
    kind = entries.text("kind")
    kinds: Mapping[str, type[FieldRecord]] = {record.kind: record for record in RECORD_TYPES}
    if kind not in kinds:
        raise FileFormatError(
            f"Expected {where}.kind to be one of {quote_names([*kinds])}; got '{kind}'."
            f"{did_you_mean(kind, kinds)}"
        )
    record = kinds[kind].from_json(entries)
    entries.refuse_unread()
    return record
