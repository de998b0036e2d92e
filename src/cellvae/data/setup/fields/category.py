"""One category of every cell, such as its batch or its label."""

from __future__ import annotations

from collections.abc import Mapping
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
    label_categories,
)
from cellvae.data.storage.memory import CategoricalColumn
from cellvae.errors import FileFormatError, InvalidDataError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.column import Column


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
    modality: str | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        values: dict[str, object] = {
            "kind": self.kind,
            "key": self.key,
            "categories": [category_to_json(value) for value in self.categories],
            **modality_entry(self),
        }
        if self.unlabeled is None:
            return values
        return values | {"unlabeled": category_to_json(self.unlabeled)}

    @classmethod
    def from_json(cls, entries: JsonObject) -> CategoryRecord:
        """Record from the entries of a JSON object."""
        key, modality = entries.optional_string("key"), read_modality(entries)
        categories = categories_from_json(
            entries.list_of_values("categories"), entries.location("categories")
        )
        if "unlabeled" not in entries.unread:
            return cls(key=key, categories=categories, modality=modality)
        unlabeled = entries.value("unlabeled")
        if unlabeled != category_to_json(categories[-1]):
            raise entries.type_error("the last category", unlabeled, "unlabeled")
        return cls(key=key, categories=categories, unlabeled=categories[-1], modality=modality)

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        if self.unlabeled is not None and self.key is not None:
            return Labels(name, self.key, str(self.unlabeled), self.modality)
        return Category(name, self.key, self.modality)

    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""
        if not self.key:
            return "nothing", "one category"
        where = describe_location(f"obs['{self.key}']", self.modality)
        return where, f"{len(self.categories):,} categories"

    def category_lists(self, name: str) -> Mapping[str, tuple[Scalar, ...]]:
        """Categories by the name of the field."""
        return {name: self.categories}

    def obs_columns(self) -> list[ObsColumn]:
        """Column of `obs` that the field is read from."""
        if self.key is None:
            return []
        return [ObsColumn(self.key, [category_to_json(value) for value in self.categories])]

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        categories: Any = (
            np.array([0]) if self.key is None else scvi_categories_array(self.categories)
        )
        state = {
            "categorical_mapping": categories,
            "original_key": self.key or f"_scvi_{scvi_name}",
        }
        if self.unlabeled is not None:
            state["unlabeled_category"] = self.unlabeled
        location = {"attr_name": "obs", "attr_key": f"_scvi_{scvi_name}"}
        return ScviField(location, state, {f"n_{scvi_name}": len(categories)})


@final
@dataclass(frozen=True)
class Category(Field):
    """Code of one category for every cell, [cells, 1]; all 0 without a key."""

    name: str
    key: str | None = None
    modality: str | None = None

    def describe(self, adata: AnnData) -> CategoryRecord:
        """Categories, in the order of pandas."""
        if self.key is None:
            return CategoryRecord(modality=self.modality)
        categories = column_categories(adata, self.key)
        return CategoryRecord(key=self.key, categories=categories, modality=self.modality)

    def read(
        self, adata: AnnData, record: CategoryRecord, order: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells."""
        return CategoricalColumn(self.category_codes(adata, record)[:, None])

    def category_codes(self, adata: AnnData, record: CategoryRecord) -> NDArray[np.int64]:
        """Code of each cell, [cells]."""
        if self.key is None:
            return np.zeros(adata.n_obs, dtype=np.int64)
        return category_codes(adata, self.key, record.categories)

    def extend(
        self, adata: AnnData, record: CategoryRecord, axis: FeatureAxis | None = None
    ) -> CategoryRecord:
        """Record for query data, in which new categories follow those of the reference."""
        if self.key is None:
            return record
        return replace(record, categories=append_categories(adata, self.key, record.categories))

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> CategoryRecord:
        """Record from the state registry of scvi-tools."""
        record = import_category(self.key, state, to_categories)
        return replace(record, modality=self.modality)


@final
@dataclass(frozen=True)
class Labels(Field):
    """Code of the label of every cell, [cells, 1]; the last code for unlabelled cells.

    A cell is unlabelled if its value is missing or the category `unlabeled`. All cells of query
    data are unlabelled if their AnnData has no such column.
    """

    name: str
    key: str
    unlabeled: str
    modality: str | None = None

    def describe(self, adata: AnnData) -> CategoryRecord:
        """Labels, in the order of pandas, except for the unlabelled category, which is last."""
        labels = label_categories(adata, self.key, self.unlabeled)
        if len(labels) < 2:
            raise InvalidDataError(
                f"Expected labels in adata.obs['{self.key}']; got no other value than "
                f"'{self.unlabeled}', the unlabeled_category. Give a column in which some cells "
                "have a label."
            )
        return CategoryRecord(
            key=self.key, categories=labels, unlabeled=labels[-1], modality=self.modality
        )

    def read(
        self, adata: AnnData, record: CategoryRecord, order: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells."""
        return CategoricalColumn(self.category_codes(adata, record)[:, None])

    def category_codes(self, adata: AnnData, record: CategoryRecord) -> NDArray[np.int64]:
        """Code of each cell, [cells]."""
        last = len(record.categories) - 1
        if self.key not in adata.obs:
            return np.full(adata.n_obs, last, dtype=np.int64)
        return category_codes(adata, self.key, record.categories, missing=last)

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> CategoryRecord:
        """Record from the state registry of scvi-tools."""
        record = import_category(self.key, state, to_categories)
        return replace(record, modality=self.modality)


def import_category(
    key: str | None, state: Mapping[str, Any], to_categories: Any
) -> CategoryRecord:
    """Record of a field of one category from the state registry of scvi-tools.

    Raises
    ------
    FileFormatError
        If the category of unlabelled cells is not the last one.
    """
    if key is None:
        return CategoryRecord()
    categories = to_categories(state["categorical_mapping"])
    unlabeled = state.get("unlabeled_category")
    if unlabeled is None:
        return CategoryRecord(key=key, categories=categories)
    if str(categories[-1]) != str(unlabeled):
        raise FileFormatError(f"Expected '{unlabeled}' to be the last of the labels.")
    return CategoryRecord(key=key, categories=categories, unlabeled=categories[-1])
