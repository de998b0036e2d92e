"""Counts of every feature of every cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from cellvae.core.files.json_object import JsonObject
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.checks import (
    CountSummary,
    check_counts,
    check_values,
    find_nonempty_cells,
    summarize_together,
)
from cellvae.data.setup.fields.field import (
    Field,
    FieldRecord,
    ScviField,
    describe_location,
    modality_entry,
    read_modality,
)
from cellvae.data.setup.tables.absent_cells import table_of_all_cells
from cellvae.data.setup.tables.feature_types import features_of_type
from cellvae.data.storage.count_matrix import CountMatrix, count_matrix
from cellvae.data.storage.disk.backed_column import BackedColumn
from cellvae.data.storage.memory import DenseColumn, SparseColumn
from cellvae.errors import DataMismatchError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.column import Column


@dataclass(frozen=True, kw_only=True)
class CountsRecord(FieldRecord):
    """Layer of the counts, and whether all were integers, and zeros and ones only.

    With `fill_absent`, a modality may lack cells of the whole: their counts are read as zeros. With
    `feature_type`, the counts are those of the features of an AnnData that have this type.
    """

    kind: ClassVar[str] = "counts"
    holds_counts: ClassVar[bool] = True
    layer: str | None = None
    integers: bool
    binary: bool = False
    modality: str | None = None
    fill_absent: bool = False
    feature_type: str | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        values: dict[str, object] = {"layer": self.layer, "integers": self.integers}
        optional: dict[str, object] = {"binary": True} if self.binary else {}
        if self.feature_type is not None:
            optional["feature_type"] = self.feature_type
        if self.fill_absent:
            optional["fill_absent"] = True
        return {"kind": self.kind, **values, **optional, **modality_entry(self)}

    @classmethod
    def from_json(cls, entries: JsonObject) -> CountsRecord:
        """Record from the entries of a JSON object."""
        return cls(
            layer=entries.optional_string("layer"),
            integers=entries.boolean("integers"),
            binary="binary" in entries.unread and entries.boolean("binary"),
            modality=read_modality(entries),
            fill_absent="fill_absent" in entries.unread and entries.boolean("fill_absent"),
            feature_type=(
                entries.optional_string("feature_type")
                if "feature_type" in entries.unread
                else None
            ),
        )

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        return Counts(
            name,
            self.layer,
            modality=self.modality,
            fill_absent=self.fill_absent,
            feature_type=self.feature_type,
        )

    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""
        found = "whole numbers" if self.integers else "numbers that are not all whole"
        where = f"layers['{self.layer}']" if self.layer else "X"
        if self.feature_type is not None:
            where += f", {self.feature_type}"
        return describe_location(where, self.modality), found

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        features = () if axis is None else axis.features
        state = {
            "n_obs": n_cells,
            "n_vars": len(features),
            "column_names": np.array(features, dtype=object),
        }
        location = {"attr_name": "layers" if self.layer else "X", "attr_key": self.layer}
        return ScviField(location, state, {})


@final
@dataclass(frozen=True, kw_only=True)
class RegionsRecord(CountsRecord):
    """Layer of the counts of regions of chromatin."""

    kind: ClassVar[str] = "regions"

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        return Regions(
            name,
            self.layer,
            modality=self.modality,
            fill_absent=self.fill_absent,
            feature_type=self.feature_type,
        )

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        registry = super().scvi_registry(scvi_name, axis, n_cells)
        n_regions = 0 if axis is None else len(axis)
        return registry._replace(summary_stats={f"n_{scvi_name}": n_regions})


@dataclass(frozen=True)
class Counts(Field):
    """Counts of every gene, from `adata.X` or a layer: [cells, genes].

    With `refuse_if_was_binary`, `check` refuses counts above 1 if those of the model's own data
    were zeros and ones. With `fill_absent`, the modality may lack cells of the MuData: their counts
    are zeros. With `feature_type`, they are those of the features of an AnnData that have this type
    in `var["feature_types"]`.
    """

    axis: ClassVar[str | None] = "genes"
    name: str = "counts"
    layer: str | None = None
    refuse_if_was_binary: bool = dataclasses.field(default=False, compare=False)
    modality: str | None = None
    fill_absent: bool = False
    feature_type: str | None = None
    record_type: ClassVar[type[CountsRecord]] = CountsRecord

    def table(self, cells: Any) -> AnnData:
        """AnnData that the counts are read from: the cells, or a modality of them."""
        if self.fill_absent:
            table = table_of_all_cells(cells, self.modality, self.layer)
        else:
            table = super().table(cells)
        return table if self.feature_type is None else features_of_type(table, self.feature_type)

    def describe(self, adata: AnnData) -> CountsRecord:
        """Record of the field in an AnnData, after a check of all values."""
        summary = self.check_counts(adata)
        return self.record_type(
            layer=self.layer,
            integers=summary.integers,
            binary=summary.binary,
            modality=self.modality,
            fill_absent=self.fill_absent,
            feature_type=self.feature_type,
        )

    def check_counts(self, adata: AnnData) -> CountSummary:
        """Check all counts; with `fill_absent`, cells may have none."""
        matrix = count_matrix(adata, self.layer)
        if self.fill_absent:
            noun = str(self.axis).removesuffix("s")
            return check_values(matrix, adata.obs_names, adata.var_names, noun)
        return check_counts(matrix, adata)

    def replace_layer(self, layer: str) -> Field:
        """Field of the same counts in another layer."""
        return dataclasses.replace(self, layer=layer)

    def measured_cells(self, adata: AnnData) -> NDArray[np.bool_] | None:
        """Cells with counts, [cells], for a modality that cells may lack."""
        if not self.fill_absent:
            return None
        return find_nonempty_cells(count_matrix(adata, self.layer), adata.n_obs)

    def check(self, adata: AnnData, record: CountsRecord) -> None:
        """Refuse NaN, infinite and negative counts, and counts above 1 for binary models."""
        summary = self.check_counts(adata)
        if self.refuse_if_was_binary and record.binary and not summary.binary:
            raise DataMismatchError(
                "Expected zeros and ones, which the model was trained on; got counts up to "
                f"{summary.largest:g}. Make them binary: adata.X = (adata.X > 0).astype('float32')."
            )

    def read(self, adata: AnnData, record: CountsRecord, order: NDArray[np.int64] | None) -> Column:
        """Column of all cells, which shares memory with the matrix of the AnnData if possible."""
        return make_count_column(count_matrix(adata, self.layer), order)

    def features(self, adata: AnnData) -> tuple[str, ...]:
        """Names of the genes in an AnnData."""
        return tuple(map(str, adata.var_names))

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> CountsRecord:
        """Record from the state registry of scvi-tools."""
        return self.record_type(
            layer=self.layer,
            integers=True,
            modality=self.modality,
            fill_absent=self.fill_absent,
            feature_type=self.feature_type,
        )


@final
@dataclass(frozen=True)
class Regions(Counts):
    """Counts of every region of chromatin, from `X` or a layer: [cells, regions]."""

    axis: ClassVar[str | None] = "regions"
    name: str = "regions"
    record_type: ClassVar[type[CountsRecord]] = RegionsRecord


def check_counts_together(adata: Any, fields: Sequence[Field]) -> None:
    """Check counts that several fields read of the same files in one pass; each knows the result.

    Nothing is done for fields of their own matrices, which are checked one by one.
    """
    counts = [field for field in fields if isinstance(field, Counts)]
    if len(counts) > 1:
        matrices = [count_matrix(field.table(adata), field.layer) for field in counts]
        summarize_together(matrices, adata.n_obs)


def make_count_column(matrix: CountMatrix, genes: NDArray[np.int64] | None) -> Column:
    """Column of counts, of the class that fits the matrix: on disk, dense or sparse."""
    if matrix.on_disk:
        selected = matrix.genes if genes is None else genes
        if genes is not None and matrix.genes is not None:
            selected = matrix.genes[genes]
        return BackedColumn(dataclasses.replace(matrix, genes=selected))
    if isinstance(matrix.values, np.ndarray):
        return DenseColumn(matrix.values, genes)
    return SparseColumn(matrix.values, genes)
