"""Covariates of every cell: several categories, and continuous values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from cellvae.core.files.json_object import JsonObject
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.categories import Scalar, scvi_categories_array
from cellvae.data.setup.category_json import categories_from_json, category_to_json
from cellvae.data.setup.fields.field import (
    Field,
    FieldRecord,
    ObsColumn,
    ScviField,
    describe_location,
    modality_entry,
    read_modality,
)
from cellvae.data.setup.obs_columns import (
    append_categories,
    category_codes,
    column_categories,
    numeric_column,
)
from cellvae.data.storage.memory import CategoricalColumn, ContinuousColumn

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.column import Column


@final
@dataclass(frozen=True, kw_only=True)
class CategoriesRecord(FieldRecord):
    """Categories of several columns, in the order of their codes."""

    kind: ClassVar[str] = "categories"
    keys: tuple[str, ...] = ()
    categories: tuple[tuple[Scalar, ...], ...] = ()
    modality: str | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        return {
            "kind": self.kind,
            "keys": list(self.keys),
            "categories": [
                [category_to_json(value) for value in values] for values in self.categories
            ],
            **modality_entry(self),
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
        return cls(keys=keys, categories=tuple(categories), modality=read_modality(entries))

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        return Categories(name, self.keys, self.modality)

    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""
        counts = ", ".join(f"{len(values):,} categories" for values in self.categories)
        return describe_keys(self.keys, self.modality), counts

    def category_lists(self, name: str) -> Mapping[str, tuple[Scalar, ...]]:
        """Categories of each column."""
        return dict(zip(self.keys, self.categories, strict=True))

    def obs_columns(self) -> list[ObsColumn]:
        """Columns of `obs` that the field is read from."""
        return [
            ObsColumn(key, [category_to_json(value) for value in values])
            for key, values in zip(self.keys, self.categories, strict=True)
        ]

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        mappings = zip(self.keys, self.categories, strict=True)
        state = {
            "mappings": {key: scvi_categories_array(values) for key, values in mappings},
            "field_keys": list(self.keys),
            "n_cats_per_key": [len(values) for values in self.categories],
        }
        return covariate_registry(scvi_name, self.keys, state)


@final
@dataclass(frozen=True)
class Categories(Field):
    """Codes of several categories for every cell, [cells, keys]; absent without keys."""

    name: str
    keys: tuple[str, ...] = ()
    modality: str | None = None

    def describe(self, adata: AnnData) -> CategoriesRecord:
        """Categories of each column, in the order of pandas."""
        categories = tuple(column_categories(adata, key) for key in self.keys)
        return CategoriesRecord(keys=self.keys, categories=categories, modality=self.modality)

    def read(
        self, adata: AnnData, record: CategoriesRecord, order: NDArray[np.int64] | None
    ) -> Column | None:
        """Column of all cells; None without keys."""
        return (
            CategoricalColumn(np.stack(self.category_codes(adata, record), axis=1))
            if self.keys
            else None
        )

    def category_codes(self, adata: AnnData, record: CategoriesRecord) -> list[NDArray[np.int64]]:
        """Codes of all cells, a list with [cells] for each key."""
        pairs = zip(self.keys, record.categories, strict=True)
        return [category_codes(adata, key, known) for key, known in pairs]

    def extend(
        self, adata: AnnData, record: CategoriesRecord, axis: FeatureAxis | None = None
    ) -> CategoriesRecord:
        """Record for query data, in which new categories follow those of the reference."""
        pairs = zip(self.keys, record.categories, strict=True)
        return replace(
            record,
            categories=tuple(append_categories(adata, key, known) for key, known in pairs),
        )

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> CategoriesRecord:
        """Record from the state registry of scvi-tools."""
        mappings = state.get("mappings", {})
        return CategoriesRecord(
            keys=self.keys,
            categories=tuple(to_categories(mappings[key]) for key in self.keys),
            modality=self.modality,
        )


@final
@dataclass(frozen=True, kw_only=True)
class NumbersRecord(FieldRecord):
    """Columns of continuous values, which had no missing values."""

    kind: ClassVar[str] = "numbers"
    keys: tuple[str, ...] = ()
    positive: bool = False
    modality: str | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        values = {"kind": self.kind, "keys": list(self.keys), "positive": self.positive}
        return values | modality_entry(self)

    @classmethod
    def from_json(cls, entries: JsonObject) -> NumbersRecord:
        """Record from the entries of a JSON object."""
        return cls(
            keys=entries.list_of_strings("keys"),
            positive=entries.boolean("positive"),
            modality=read_modality(entries),
        )

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        return Numbers(name, self.keys, self.positive, self.modality)

    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""
        return describe_keys(self.keys, self.modality), "numbers" if self.keys else ""

    def obs_columns(self) -> list[ObsColumn]:
        """Columns of `obs` that the field is read from."""
        return [ObsColumn(key, None) for key in self.keys]

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        if self.keys and self.positive:
            return ScviField({"attr_name": "obs", "attr_key": self.keys[0]}, {}, {})
        state = {"columns": np.array(self.keys, dtype=object)}
        return covariate_registry(scvi_name, self.keys, state)


@final
@dataclass(frozen=True)
class Numbers(Field):
    """Continuous values of several columns for every cell, [cells, keys]; absent without keys.

    With `positive`, values must be above 0, as size factors are.
    """

    name: str
    keys: tuple[str, ...] = ()
    positive: bool = False
    modality: str | None = None

    def describe(self, adata: AnnData) -> NumbersRecord:
        """Record of the columns, after a check of all values."""
        self.values(adata)
        return NumbersRecord(keys=self.keys, positive=self.positive, modality=self.modality)

    def read(
        self, adata: AnnData, record: NumbersRecord, order: NDArray[np.int64] | None
    ) -> Column | None:
        """Column of all cells; None without keys."""
        return ContinuousColumn(np.stack(self.values(adata), axis=1)) if self.keys else None

    def values(self, adata: AnnData) -> list[NDArray[np.float32]]:
        """Values of all cells, a list with [cells] for each key."""
        return [numeric_column(adata, key, positive=self.positive) for key in self.keys]

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> NumbersRecord:
        """Record from the state registry of scvi-tools."""
        return NumbersRecord(keys=self.keys, positive=self.positive, modality=self.modality)


def describe_keys(keys: Sequence[str], modality: str | None) -> str:
    """Columns of `obs` with these names, for a table."""
    return ", ".join(describe_location(f"obs['{key}']", modality) for key in keys) or "nothing"


def covariate_registry(scvi_name: str, keys: Sequence[str], state: dict[str, Any]) -> ScviField:
    """Registry of covariates, as scvi-tools stores it; empty without keys."""
    if not keys:
        return ScviField({}, {}, {})
    location = {"attr_name": "obsm", "attr_key": f"_scvi_{scvi_name}"}
    return ScviField(location, state, {f"n_{scvi_name}": len(keys)})
