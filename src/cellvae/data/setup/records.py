"""Records of the fields of a model: what its AnnData had for each, in a form for JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from cellvae.core.json_object import JsonObject
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.category_json import categories_from_json, category_to_json
from cellvae.errors import FileFormatError, did_you_mean, quote_names


class FieldRecord(ABC):
    """What an AnnData had for one field; there is a subclass for each type of field."""

    kind: ClassVar[str]

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""

    @classmethod
    @abstractmethod
    def from_json(cls, entries: JsonObject) -> FieldRecord:
        """Record from the entries of a JSON object, after its `kind` was read."""


@final
@dataclass(frozen=True, kw_only=True)
class CountsRecord(FieldRecord):
    """Layer of the counts, and whether all were integers, and zeros and ones only."""

    kind: ClassVar[str] = "counts"
    layer: str | None = None
    integers: bool
    binary: bool = False

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        values: dict[str, object] = {"layer": self.layer, "integers": self.integers}
        optional = {"binary": True} if self.binary else {}
        return {"kind": self.kind, **values, **optional}

    @classmethod
    def from_json(cls, entries: JsonObject) -> CountsRecord:
        """Record from the entries of a JSON object."""
        return cls(
            layer=entries.optional_string("layer"),
            integers=entries.boolean("integers"),
            binary="binary" in entries.unread and entries.boolean("binary"),
        )


@final
@dataclass(frozen=True, kw_only=True)
class CategoryRecord(FieldRecord):
    """Categories of one column, in the order of their codes; a single one without a column.

    `unlabeled` is the category of unlabelled cells, the last one; None if the field is no label.
    """

    kind: ClassVar[str] = "category"
    key: str | None = None
    categories: tuple[Scalar, ...] = (0,)
    unlabeled: Scalar | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
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
        key = entries.optional_string("key")
        categories = categories_from_json(
            entries.list_of_values("categories"), entries.location("categories")
        )
        if "unlabeled" not in entries.unread:
            return cls(key=key, categories=categories)
        unlabeled = entries.value("unlabeled")
        if unlabeled != category_to_json(categories[-1]):
            raise entries.type_error("the last category", unlabeled, "unlabeled")
        return cls(key=key, categories=categories, unlabeled=categories[-1])


@final
@dataclass(frozen=True, kw_only=True)
class CategoriesRecord(FieldRecord):
    """Categories of several columns, in the order of their codes."""

    kind: ClassVar[str] = "categories"
    keys: tuple[str, ...] = ()
    categories: tuple[tuple[Scalar, ...], ...] = ()

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
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
        where = entries.location("categories")
        keys = entries.list_of_strings("keys")
        lists = entries.list_of_values("categories")
        if len(lists) != len(keys) or not all(
            isinstance(values, (list, tuple)) for values in lists
        ):
            raise entries.type_error(f"{len(keys)} lists", lists, "categories")
        categories = (
            categories_from_json([*values], where)
            for values in lists
            if isinstance(values, (list, tuple))
        )
        return cls(keys=keys, categories=tuple(categories))


@final
@dataclass(frozen=True, kw_only=True)
class NumbersRecord(FieldRecord):
    """Columns of continuous values, which had no missing values."""

    kind: ClassVar[str] = "numbers"
    keys: tuple[str, ...] = ()
    positive: bool = False

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        return {"kind": self.kind, "keys": list(self.keys), "positive": self.positive}

    @classmethod
    def from_json(cls, entries: JsonObject) -> NumbersRecord:
        """Record from the entries of a JSON object."""
        return cls(keys=entries.list_of_strings("keys"), positive=entries.boolean("positive"))


RECORD_TYPES: tuple[type[FieldRecord], ...] = (
    CountsRecord,
    CategoryRecord,
    CategoriesRecord,
    NumbersRecord,
)
"""All types of records that a file can hold."""


def record_from_json(values: object, where: str) -> FieldRecord:
    """Record of a field from its JSON object.

    Raises
    ------
    FileFormatError
        If an entry is unknown, missing or of another type than it should be.
    """
    entries = JsonObject(values, where)
    kind = entries.string("kind")
    kinds: Mapping[str, type[FieldRecord]] = {record.kind: record for record in RECORD_TYPES}
    if kind not in kinds:
        raise FileFormatError(
            f"Expected {where}.kind to be one of {quote_names([*kinds])}; got '{kind}'."
            f"{did_you_mean(kind, kinds)}"
        )
    record = kinds[kind].from_json(entries)
    entries.refuse_unread()
    return record
