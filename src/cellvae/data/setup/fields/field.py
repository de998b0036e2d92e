"""Base classes of fields, and of the records of what an AnnData had for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cellvae.core.files.json_object import JsonObject
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.tables.cells import table_of
from cellvae.errors import DataMismatchError

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.setup.axes import FeatureAxis
    from cellvae.data.storage.column import Column


class ObsColumn(NamedTuple):
    """Column of `obs` that a field is read from."""

    key: str
    categories: list[Any] | None
    """JSON values of its categories in the order of their codes; None for continuous values."""


class ScviField(NamedTuple):
    """Registry of a field in the form of scvi-tools."""

    data_registry: dict[str, Any]
    """Attribute of the AnnData, and key in it."""
    state_registry: dict[str, Any]
    """What was found there."""
    summary_stats: dict[str, int]
    """Sizes, by name."""


class FieldRecord(ABC):
    """What an AnnData had for one field; there is a subclass for each type of field."""

    kind: ClassVar[str]
    modality: str | None
    """Modality of a MuData; None for an AnnData, or the `obs` of a MuData."""
    holds_counts: ClassVar[bool] = False
    """Whether the field is a matrix of counts, which a minified AnnData does not have."""

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""

    @classmethod
    @abstractmethod
    def from_json(cls, entries: JsonObject) -> FieldRecord:
        """Record from the entries of a JSON object, after its `kind` was read."""

    @abstractmethod
    def field(self, name: str) -> Field:
        """Field that the record describes."""

    @abstractmethod
    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""

    @property
    def location(self) -> str:
        """Where the field is read from, for messages."""
        return self.describe()[0]

    def category_lists(self, name: str) -> Mapping[str, tuple[Scalar, ...]]:
        """Categories of the field by its name, or by the columns if there are several."""
        return {}

    def obs_columns(self) -> list[ObsColumn]:
        """Columns of `obs` that the field is read from."""
        return []

    @abstractmethod
    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it.

        Parameters
        ----------
        scvi_name
            Name of the field in scvi-tools.
        axis
            Features of the field; None for values of whole cells.
        n_cells
            Number of cells.
        """


class Field(ABC):
    """Part of an AnnData that a model reads; `name` is its name in a batch.

    Where the cells are a MuData, methods are given the AnnData of the `modality`.
    """

    name: str
    modality: str | None
    axis: ClassVar[str | None] = None
    """Name of the feature axis; None for values of whole cells."""
    may_lack_features: ClassVar[bool] = False
    """Whether cells are read in which features of the model were not measured."""

    def table(self, cells: Any) -> AnnData:
        """AnnData that the field is read from: the cells, or a modality of them."""
        return table_of(cells, self.modality, has_features=self.axis is not None)

    @abstractmethod
    def describe(self, adata: AnnData) -> FieldRecord:
        """Record of the field in an AnnData, after a check of all values."""

    def features(self, adata: AnnData) -> tuple[str, ...]:
        """Names of the features in an AnnData; empty for values of whole cells."""
        return ()

    @property
    def has_variables(self) -> bool:
        """Whether its features are variables of the table, with a row in `var`."""
        return self.axis is not None

    def replace_layer(self, layer: str) -> Field:
        """Field of the same features in another layer, or another entry of `obsm`."""
        return self

    def measured_cells(self, adata: AnnData) -> NDArray[np.bool_] | None:
        """Cells with counts, [cells], for a modality that cells may lack; None for other fields."""
        return None

    def check(self, adata: AnnData, record: Any) -> None:  # noqa: B027
        """Check the values of an AnnData that a trained model is applied to.

        Raises
        ------
        InvalidDataError
            If there are values that no model can use.
        DataMismatchError
            If there are values that this model cannot use.
        """

    def empty_table(self, cells: Any, axis: FeatureAxis) -> AnnData:
        """Table of a modality that query data lack, for cells with these names.

        Raises
        ------
        DataMismatchError
            If the model needs the modality.
        """
        raise DataMismatchError(
            f"Expected the modality '{self.modality}' with the {axis.name} of the reference; the "
            "MuData does not have it."
        )

    def order(self, adata: AnnData, record: Any, axis: FeatureAxis) -> NDArray[np.int64] | None:
        """Indices of the model's features in an AnnData; None if they are the same.

        Raises
        ------
        DataMismatchError
            If features are missing that the model needs.
        InvalidDataError
            If a feature of the model occurs twice.
        """
        return axis.order_in(self.features(adata))

    @abstractmethod
    def read(self, adata: AnnData, record: Any, order: NDArray[np.int64] | None) -> Column | None:
        """Column of all cells; None if the user has set no key for this field.

        `order` has the indices of the model's features in the AnnData; None if they are the same.
        """

    def extend(self, adata: AnnData, record: Any, axis: FeatureAxis | None = None) -> FieldRecord:
        """Record for query data, in which new categories follow those of the reference.

        `axis` has the model's features of the field; None for values of whole cells.

        Raises
        ------
        UnknownKeyError
            If a column does not exist.
        InvalidDataError
            If a cell has no category.
        DataMismatchError
            If a new category equals a known one except for its type.
        """
        known: FieldRecord = record
        return known

    @abstractmethod
    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> FieldRecord:
        """Record from the state registry of scvi-tools.

        Parameters
        ----------
        state
            State registry of the field; empty if it was not set up.
        to_categories
            Function from an array of categories to a tuple.

        Raises
        ------
        FileFormatError
            If the registry is not one that this field can have.
        """


def modality_entry(record: FieldRecord) -> dict[str, object]:
    """Entry of the JSON object of a record for its modality, if it has one."""
    return {} if record.modality is None else {"modality": record.modality}


def read_modality(entries: JsonObject) -> str | None:
    """Modality of a record from its JSON object."""
    return entries.optional_string("modality") if "modality" in entries.unread else None


def describe_location(where: str, modality: str | None) -> str:
    """Where a field is read from, with the modality."""
    return where if modality is None or where == "nothing" else f"mod['{modality}'].{where}"
