"""Counts of surface proteins, and which of them were measured in which panel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.core.json_object import JsonObject
from cellvae.core.log import logger, warn
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.category_json import categories_from_json, category_to_json
from cellvae.data.setup.cells import table_of
from cellvae.data.setup.checks import check_values
from cellvae.data.setup.fields.field import (
    Field,
    FieldRecord,
    ScviField,
    describe_location,
    modality_entry,
    read_modality,
)
from cellvae.data.setup.obs_columns import (
    append_categories,
    category_codes,
    column_categories,
    obs_column,
)
from cellvae.data.storage.count_matrix import CountMatrix, count_matrix
from cellvae.data.storage.memory import DenseColumn
from cellvae.errors import (
    DataWarning,
    InvalidDataError,
    UnknownKeyError,
    count_noun,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.column import Column

MASK_KEY = "protein_batch_mask"
"""Name of the mask of measured proteins in the registry of scvi-tools."""


@final
@dataclass(frozen=True, kw_only=True)
class ProteinsRecord(FieldRecord):
    """Where proteins are read from, and which of them have no counts in which panel.

    `panels` are the categories of the panels in the order of their codes, and `without_counts` has
    for each the positions of the proteins that are zero in all of its cells: they are taken as not
    measured.
    """

    kind: ClassVar[str] = "proteins"
    holds_counts: ClassVar[bool] = True
    key: str | None = None
    names_key: str | None = None
    panel_key: str | None = None
    panel_modality: str | None = None
    integers: bool = True
    panels: tuple[Scalar, ...] = (0,)
    without_counts: tuple[tuple[int, ...], ...] = ((),)
    modality: str | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        return {
            "kind": self.kind,
            "key": self.key,
            "names_key": self.names_key,
            "panel_key": self.panel_key,
            "panel_modality": self.panel_modality,
            "integers": self.integers,
            "panels": [category_to_json(panel) for panel in self.panels],
            "without_counts": [list(positions) for positions in self.without_counts],
            **modality_entry(self),
        }

    @classmethod
    def from_json(cls, entries: JsonObject) -> ProteinsRecord:
        """Record from the entries of a JSON object."""
        lists = entries.list_of_values("without_counts")
        valid = all(
            isinstance(positions, list) and all(type(i) is int and i >= 0 for i in positions)
            for positions in lists
        )
        panels = categories_from_json(entries.list_of_values("panels"), entries.location("panels"))
        if not valid or len(lists) != len(panels):
            raise entries.type_error("a list of positions for each panel", lists, "without_counts")
        return cls(
            key=entries.optional_string("key"),
            names_key=entries.optional_string("names_key"),
            panel_key=entries.optional_string("panel_key"),
            panel_modality=entries.optional_string("panel_modality"),
            integers=entries.boolean("integers"),
            panels=panels,
            without_counts=tuple(tuple(positions) for positions in lists),  # type: ignore[arg-type]
            modality=read_modality(entries),
        )

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        return Proteins(
            name,
            self.key,
            names_key=self.names_key,
            panel_key=self.panel_key,
            panel_modality=self.panel_modality,
            modality=self.modality,
        )

    def measured(self, n_proteins: int) -> NDArray[np.bool_]:
        """Which proteins have counts in which panel, [panels, proteins]."""
        mask = np.ones((len(self.without_counts), n_proteins), dtype=bool)
        for panel, positions in enumerate(self.without_counts):
            mask[panel, list(positions)] = False
        return mask

    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""
        if self.modality is None:
            where = f"obsm['{self.key}']"
        else:
            layer = "X" if self.key is None else f"layers['{self.key}']"
            where = describe_location(layer, self.modality)
        found = "whole numbers" if self.integers else "numbers that are not all whole"
        missing = sum(1 for positions in self.without_counts if positions)
        if missing:
            found += f", proteins without counts in {count_noun(missing, 'panel')}"
        return where, found

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        features = () if axis is None else axis.features
        state: dict[str, Any] = {"column_names": np.array(features, dtype=object)}
        if any(self.without_counts):
            masks = self.measured(len(features))
            state[MASK_KEY] = {str(panel): mask for panel, mask in enumerate(masks)}
        location = {"attr_name": "obsm", "attr_key": self.key}
        if self.modality is not None:
            location = {
                "attr_name": "X" if self.key is None else "layers",
                "attr_key": self.key,
                "mod_key": self.modality,
            }
        return ScviField(location, state, {f"n_{scvi_name}": len(features)})


@final
@dataclass(frozen=True)
class Proteins(Field):
    """Counts of proteins, [cells, proteins], from `adata.obsm` or from a modality of a MuData.

    Parameters
    ----------
    name
        Name in a batch.
    key
        Entry of `obsm`; with a modality the layer of its counts, None for `X`.
    names_key
        Entry of `uns` with the names of the proteins; None for the columns of a DataFrame, or
        numbers.
    panel_key
        Column of `obs` with the panel of each cell; None if all cells have one.
    panel_modality
        Modality that has this column; None for the `obs` of the whole.
    modality
        Modality of the proteins; None for `obsm`.
    """

    axis: ClassVar[str | None] = "proteins"
    name: str = "proteins"
    key: str | None = None
    names_key: str | None = None
    panel_key: str | None = None
    panel_modality: str | None = None
    modality: str | None = None

    def table(self, cells: Any) -> AnnData:
        """AnnData that the proteins are read from, with the column of the panel in its `obs`."""
        table = super().table(cells)
        if self.panel_key is None or self.panel_modality == self.modality:
            return table
        from anndata import AnnData

        of_panel = table_of(cells, self.panel_modality, has_features=False)
        panel = obs_column(of_panel, self.panel_key).to_frame()
        layers = {key: table.layers[key] for key in ([self.key] if self.key else ())}
        return AnnData(None if layers else table.X, obs=panel, var=table.var, layers=layers)

    def matrix(self, adata: AnnData) -> CountMatrix:
        """Matrix of the counts, [cells, proteins].

        Raises
        ------
        UnknownKeyError
            If there is no such entry or layer.
        InvalidDataError
            If it is not a matrix of numbers.
        """
        if self.modality is not None:
            return count_matrix(adata, self.key)
        if self.key not in adata.obsm:
            close = did_you_mean(str(self.key), adata.obsm.keys())
            raise UnknownKeyError(
                f"Expected an entry of adata.obsm with the counts of the proteins; got "
                f"'{self.key}'.{close} It has {quote_names([*adata.obsm.keys()]) or 'none'}."
            )
        values = adata.obsm[self.key]
        where = f"adata.obsm['{self.key}']"
        if isinstance(values, pd.DataFrame):
            try:
                values = values.to_numpy(dtype=np.float32, na_value=np.nan)
            except (TypeError, ValueError) as error:
                raise InvalidDataError(f"Expected numbers in {where}; {error}.") from error
        elif sparse.issparse(values):
            values = values.toarray()
        values = np.asarray(values)
        if values.ndim != 2 or values.dtype.kind not in "buif":
            raise InvalidDataError(
                f"Expected a matrix of numbers, [cells, proteins], in {where}; got "
                f"{values.dtype} of the shape {[*values.shape]}."
            )
        advice = "The models need raw counts of proteins."
        return CountMatrix(values=values, where=where, advice=advice)

    def features(self, adata: AnnData) -> tuple[str, ...]:
        """Names of the proteins in an AnnData.

        Raises
        ------
        UnknownKeyError
            If there is no such entry of `uns`.
        InvalidDataError
            If there are fewer or more names than proteins, or one occurs twice.
        """
        if self.modality is not None:
            names = tuple(map(str, adata.var_names))
        elif self.names_key is not None:
            if self.names_key not in adata.uns:
                raise UnknownKeyError(
                    f"Expected an entry of adata.uns with the names of the proteins; got "
                    f"'{self.names_key}'.{did_you_mean(self.names_key, adata.uns)}"
                )
            names = tuple(map(str, adata.uns[self.names_key]))
        elif isinstance(adata.obsm.get(self.key), pd.DataFrame):
            names = tuple(map(str, adata.obsm[self.key].columns))
        else:
            names = tuple(map(str, range(self.matrix(adata).values.shape[1])))
        n_proteins = self.matrix(adata).values.shape[1]
        if len(names) != n_proteins or not n_proteins:
            raise InvalidDataError(
                f"Expected a name for each of {n_proteins:,} proteins, of at least one; got "
                f"{len(names):,}."
            )
        if len(set(names)) < len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise InvalidDataError(
                f"Expected different names for all proteins; got {quote_names(repeated)} more "
                "than once. Rename the columns."
            )
        return names

    def describe(self, adata: AnnData) -> ProteinsRecord:
        """Record of the field in an AnnData, after a check of all values.

        Raises
        ------
        InvalidDataError
            If a count is NaN, infinite, negative or too large; the message names it.

        Warns
        -----
        DataWarning
            If counts are not whole numbers.
        """
        integers = self.check_counts(adata)
        panels = (0,) if self.panel_key is None else column_categories(adata, self.panel_key)
        without = self.proteins_without_counts(adata, panels)
        missing = sum(1 for positions in without if positions)
        if missing:
            logger.info(
                "Proteins without counts in all cells of a panel are taken as not measured: %s "
                "of %s.",
                f"{missing:,}",
                count_noun(len(without), "panel"),
            )
        return ProteinsRecord(
            key=self.key,
            names_key=self.names_key,
            panel_key=self.panel_key,
            panel_modality=self.panel_modality,
            integers=integers,
            panels=panels,
            without_counts=without,
            modality=self.modality,
        )

    def check_counts(self, adata: AnnData) -> bool:
        """Check all counts; return whether all are whole numbers."""
        matrix = self.matrix(adata)
        summary = check_values(matrix, adata.obs_names, self.features(adata), "protein")
        if not summary.integers:
            warn(
                f"Expected raw counts of proteins in {matrix.where}; got values that are not whole "
                "numbers.",
                DataWarning,
            )
        return summary.integers

    def check(self, adata: AnnData, record: ProteinsRecord) -> None:
        """Check the counts of an AnnData that a trained model is applied to."""
        self.check_counts(adata)

    def proteins_without_counts(
        self, adata: AnnData, panels: tuple[Any, ...]
    ) -> tuple[tuple[int, ...], ...]:
        """Positions of the proteins that are zero in all cells of a panel, for each panel.

        A panel without cells has none.
        """
        values = self.matrix(adata).values
        if self.panel_key is None:
            codes = np.zeros(adata.n_obs, dtype=np.int64)
        else:
            codes = category_codes(adata, self.panel_key, panels)
        without = []
        for panel in range(len(panels)):
            cells = np.flatnonzero(codes == panel)
            counts = values[cells]
            totals = np.asarray((counts != 0).sum(axis=0)).ravel()
            empty = np.flatnonzero(totals == 0) if len(cells) else np.empty(0, dtype=np.int64)
            without.append(tuple(empty.tolist()))
        return tuple(without)

    def read(
        self, adata: AnnData, record: ProteinsRecord, order: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells."""
        values = self.matrix(adata).values
        if sparse.issparse(values):
            values = values.toarray()
        return DenseColumn(np.asarray(values[:]), order)

    def extend(self, adata: AnnData, record: ProteinsRecord) -> ProteinsRecord:
        """Record for query data, with the panels that the reference does not have."""
        if self.panel_key is None:
            return record
        panels = append_categories(adata, self.panel_key, record.panels)
        found = self.proteins_without_counts(adata, panels)
        without = (*record.without_counts, *found[len(record.panels) :])
        return dataclasses.replace(record, panels=panels, without_counts=without)

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> ProteinsRecord:
        """Record from the state registry of scvi-tools, and the categories of its panels."""
        masks = state.get(MASK_KEY) or {}
        panels: tuple[Scalar, ...] = (0,)
        if self.panel_key is not None:
            panels = to_categories(state["panels"])
        n_panels = len(panels)
        without = [
            tuple(np.flatnonzero(~np.asarray(masks[str(panel)], dtype=bool)).tolist())
            if str(panel) in masks
            else ()
            for panel in range(n_panels)
        ]
        return ProteinsRecord(
            key=self.key,
            names_key=self.names_key,
            panel_key=self.panel_key,
            panel_modality=self.panel_modality,
            panels=panels,
            without_counts=tuple(without),
            modality=self.modality,
        )
