"""Registration: genes, categories and columns of the AnnData that a model was created with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import numpy as np

from cellvae.core.files.json_object import JsonObject
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.checks import check_names
from cellvae.data.setup.fields import (
    CategoriesRecord,
    CategoryRecord,
    CountsRecord,
    Field,
    FieldRecord,
    NumbersRecord,
    record_from_json,
)
from cellvae.data.setup.fields.counts import check_counts_together
from cellvae.data.setup.fields.modality_cells import (
    check_modality_cells,
    count_modality_cells,
    measured_modalities,
)
from cellvae.data.setup.keys import K, keys_from_kwargs
from cellvae.data.setup.tables.cells import check_is_cells
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import (
    FileFormatError,
    InvalidOptionError,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.contracts import B


R = TypeVar("R", bound=FieldRecord)


@final
@dataclass(frozen=True, kw_only=True)
class Registration(Generic[K]):
    """Features, categories and columns of the AnnData that a model was created with.

    Parameters
    ----------
    axes
        Features of each table that the model reads, by the name of the axis; genes, or what stands
        for them, are the first.
    n_cells
        Number of cells of the AnnData.
    fields
        Record of each field of the model, by its name in a batch.
    keys
        Keys that the user passed to `setup_anndata`.
    modality_cells
        Number of cells by the modalities that were measured in them, such as `"genes + regions"`,
        for a model whose cells may lack modalities; otherwise empty.
    """

    axes: Mapping[str, FeatureAxis]
    n_cells: int
    fields: Mapping[str, FieldRecord]
    keys: K
    modality_cells: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, adata: AnnData, keys: K, fields: Sequence[Field]) -> Registration[K]:
        """Registration of an AnnData, after a check of all values that the model will use.

        Raises
        ------
        UnknownKeyError
            If a column or layer does not exist.
        InvalidDataError
            If there are values that no model can be trained on; the message names cells and genes.
        """
        check_is_cells(adata)
        tables = [field.table(adata) for field in fields if field.axis is not None]
        for table in tables or [adata]:
            check_names(table)
        axes = feature_axes(adata, fields)
        check_counts_together(adata, fields)
        records = {field.name: field.describe(field.table(adata)) for field in fields}
        masks = measured_modalities(adata, fields)
        locations = {str(field.axis): records[field.name].location for field in fields}
        check_modality_cells(masks, adata.obs_names, locations)
        return cls(
            axes=axes,
            n_cells=int(adata.n_obs),
            fields=records,
            keys=keys,
            modality_cells=count_modality_cells(masks),
        )

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of the features of the first axis, in the order of the model."""
        return self.first_axis.features

    @property
    def n_genes(self) -> int:
        """Number of features of the first axis."""
        return len(self.first_axis)

    @property
    def first_axis(self) -> FeatureAxis:
        """Axis of the genes, or of the regions of a model without genes."""
        return next(iter(self.axes.values()))

    def n_features(self, axis: str) -> int:
        """Number of features of an axis; 0 without it."""
        return len(self.axes[axis]) if axis in self.axes else 0

    @property
    def integers(self) -> bool:
        """Whether all counts were integers."""
        records = self.fields.values()
        return all(record.integers for record in records if isinstance(record, CountsRecord))

    @property
    def binary(self) -> bool:
        """Whether all counts were zeros and ones."""
        records = self.fields.values()
        return all(record.binary for record in records if isinstance(record, CountsRecord))

    def record(self, name: str, record_type: type[R]) -> R:
        """Record of a field, which must be of this type."""
        record = self.fields.get(name)
        if not isinstance(record, record_type):
            known = [key for key, value in self.fields.items() if isinstance(value, record_type)]
            raise KeyError(f"Expected one of the fields {quote_names(known)}; got '{name}'.")
        return record

    def categories(self, name: str) -> tuple[Scalar, ...]:
        """Categories of a field in the order of their codes; (0,) without a column."""
        return self.record(name, CategoryRecord).categories

    def n_categories(self, name: str) -> int:
        """Number of categories of a field; 1 without a column."""
        return len(self.categories(name))

    def n_categories_by_key(self, name: str) -> tuple[int, ...]:
        """Number of categories of each column of a field with several columns."""
        return tuple(map(len, self.record(name, CategoriesRecord).categories))

    def n_numbers(self, name: str) -> int:
        """Number of columns of a field of continuous values."""
        return len(self.record(name, NumbersRecord).keys)

    def gene_order(self, adata: AnnData) -> NDArray[np.int64] | None:
        """Indices of the model's genes in an AnnData, by name; None if its genes are the same.

        Raises
        ------
        DataMismatchError
            If genes are missing; the message names them.
        InvalidDataError
            If a gene of the model occurs twice.
        """
        return self.first_axis.order_in(adata.var_names)

    def check_first_axis(self, adata: AnnData, fields: Sequence[Field]) -> None:
        """Refuse an AnnData without the model's genes, where its counts were dropped too."""
        if any(field.axis == self.first_axis.name for field in fields):
            return
        for name, record in self.fields.items():
            field = record.field(name)
            if field.axis == self.first_axis.name:
                self.first_axis.order_in(field.features(field.table(adata)))

    def read(
        self,
        adata: AnnData,
        fields: Sequence[Field],
        batch_type: Callable[..., B],
        *,
        check_counts: bool = True,
    ) -> ColumnRows[B]:
        """Rows of all cells of an AnnData, with the genes and the codes of the model.

        Parameters
        ----------
        adata
            The model's own data or others; genes are matched by name, categories by value.
        fields
            Fields to read, with the names that they had when the model was created.
        batch_type
            NamedTuple class of a batch; fields without a key keep its defaults.
        check_counts
            Whether to check all counts; those of the model's own data were checked before.

        Raises
        ------
        DataMismatchError
            If genes are missing or categories unknown.
        UnknownKeyError
            If a column or layer does not exist.
        InvalidDataError
            If there are values that no model can use.
        """
        self.check_first_axis(adata, fields)
        orders = {}
        for field in fields:
            record: Any = self.fields[field.name]
            if field.axis is not None:
                orders[field.name] = field.order(field.table(adata), record, self.axes[field.axis])
        if check_counts:
            check_counts_together(adata, fields)
        columns = {}
        for field in fields:
            record, table = self.fields[field.name], field.table(adata)
            if check_counts:
                field.check(table, record)
            column = field.read(table, record, orders.get(field.name))
            if column is not None:
                columns[field.name] = column
        return ColumnRows(columns, batch_type)

    def to_json(self) -> dict[str, object]:
        """JSON object."""
        return {
            "axes": [axis.to_json() for axis in self.axes.values()],
            "n_cells": self.n_cells,
            "fields": {name: record.to_json() for name, record in self.fields.items()},
            "keys": self.keys.to_json(),
            **({"modality_cells": dict(self.modality_cells)} if self.modality_cells else {}),
        }

    @classmethod
    def from_json(cls, values: object, keys_type: type[K]) -> Registration[K]:
        """Registration from its JSON object.

        Raises
        ------
        FileFormatError
            If an entry is unknown, missing or of another type than it should be.
        """
        entries = JsonObject(values, "registration")
        axes = [
            FeatureAxis.from_json(axis, f"registration.axes[{i}]")
            for i, axis in enumerate(entries.list_of_values("axes"))
        ]
        n_cells = entries.integer("n_cells", minimum=1)
        records = entries.json_object("fields").unread
        fields = {
            name: record_from_json(record, f"registration.fields.{name}")
            for name, record in records.items()
        }
        kwargs = entries.json_object("keys").unread
        modality_cells = {}
        if "modality_cells" in entries.unread:
            of_modalities = entries.json_object("modality_cells")
            modality_cells = {name: of_modalities.integer(name) for name in [*of_modalities.unread]}
        entries.refuse_unread()
        if not axes:
            raise FileFormatError("Expected at least one axis in registration.axes; got none.")
        try:
            keys = keys_from_kwargs(kwargs, keys_type)
        except InvalidOptionError as error:
            raise FileFormatError(f"Cannot read registration.keys: {error}") from error
        return cls(
            axes={axis.name: axis for axis in axes},
            n_cells=n_cells,
            fields=fields,
            keys=keys,
            modality_cells=modality_cells,
        )


def feature_axes(adata: AnnData, fields: Sequence[Field]) -> dict[str, FeatureAxis]:
    """Axes of the fields of a model in an AnnData, by name, in the order of the fields."""
    axes: dict[str, FeatureAxis] = {}
    for field in fields:
        if field.axis is not None:
            features = field.features(field.table(adata))
            axes.setdefault(field.axis, FeatureAxis(field.axis, features))
    return axes
