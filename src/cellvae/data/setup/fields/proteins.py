"""Counts of surface proteins, and which of them were measured in which panel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.core.files.json_object import JsonObject
from cellvae.core.log import logger, warn
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.categories import Scalar
from cellvae.data.setup.category_json import categories_from_json, category_to_json
from cellvae.data.setup.checks import check_values, find_nonempty_cells
from cellvae.data.setup.fields.field import (
    Field,
    FieldRecord,
    ScviField,
    describe_location,
    modality_entry,
    read_modality,
)
from cellvae.data.setup.fields.protein_matrix import (
    check_protein_names,
    names_in_uns,
    obsm_matrix,
)
from cellvae.data.setup.obs_columns import (
    append_categories,
    category_codes,
    column_categories,
    obs_column,
)
from cellvae.data.setup.tables.absent_cells import table_of_all_cells
from cellvae.data.setup.tables.cells import table_of
from cellvae.data.storage.chunks import iter_chunks
from cellvae.data.storage.count_matrix import CountMatrix, count_matrix
from cellvae.data.storage.disk.backed_column import make_reader
from cellvae.data.storage.memory import DenseColumn
from cellvae.errors import (
    DataMismatchError,
    DataWarning,
    count_noun,
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
    fill_absent: bool = False

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
            **({"fill_absent": True} if self.fill_absent else {}),
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
            fill_absent="fill_absent" in entries.unread and entries.boolean("fill_absent"),
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
            fill_absent=self.fill_absent,
        )

    def measurement_mask(self, n_proteins: int) -> NDArray[np.bool_]:
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
        state: dict[str, Any] = {"column_names": list(features)}
        if self.modality is not None:
            names = np.array(features, dtype=object)
            state = {"n_obs": n_cells, "n_vars": len(features), "column_names": names}
        if any(self.without_counts):
            masks = self.measurement_mask(len(features))
            state[MASK_KEY] = {str(panel): mask for panel, mask in enumerate(masks)}
        location = {"attr_name": "obsm", "attr_key": self.key}
        if self.modality is not None:
            location = {
                "attr_name": "X" if self.key is None else "layers",
                "attr_key": self.key,
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
    fill_absent
        Whether the modality may lack cells of the MuData, whose counts are zeros.
    """

    axis: ClassVar[str | None] = "proteins"
    may_lack_features: ClassVar[bool] = True
    name: str = "proteins"
    key: str | None = None
    names_key: str | None = None
    panel_key: str | None = None
    panel_modality: str | None = None
    modality: str | None = None
    fill_absent: bool = False

    def table(self, cells: Any) -> AnnData:
        """AnnData that the proteins are read from, with the column of the panel in its `obs`."""
        if self.fill_absent and self.modality is not None:
            table = table_of_all_cells(cells, self.modality, self.key)
        else:
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
        return obsm_matrix(adata, self.key)

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
            names = names_in_uns(adata, self.names_key)
        elif isinstance(adata.obsm.get(self.key), pd.DataFrame):
            names = tuple(map(str, adata.obsm[self.key].columns))
        else:
            names = tuple(map(str, range(self.matrix(adata).values.shape[1])))
        check_protein_names(names, self.matrix(adata).values.shape[1])
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
            fill_absent=self.fill_absent,
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

    @property
    def has_variables(self) -> bool:
        """Whether the proteins are variables of a modality, not columns of `obsm`."""
        return self.modality is not None

    def replace_layer(self, layer: str) -> Field:
        """Field of the same proteins in another layer, or another entry of `obsm`."""
        return dataclasses.replace(self, key=layer)

    def measured_cells(self, adata: AnnData) -> NDArray[np.bool_] | None:
        """Cells with counts, [cells], for a modality that cells may lack."""
        if not self.fill_absent or self.is_absent(adata):
            return None
        return find_nonempty_cells(self.matrix(adata), adata.n_obs)

    def check(self, adata: AnnData, record: ProteinsRecord) -> None:
        """Check the counts of an AnnData that a trained model is applied to."""
        if not self.is_absent(adata):
            self.check_counts(adata)

    def empty_table(self, cells: Any, axis: FeatureAxis) -> AnnData:
        """Table of zeros, which are taken as not measured, for cells with these names."""
        from anndata import AnnData

        zeros = sparse.csr_matrix((len(cells), len(axis)), dtype=np.float32)
        return AnnData(
            zeros,
            obs=pd.DataFrame(index=cells),
            var=pd.DataFrame(index=[*axis.features]),
            layers={} if self.key is None else {self.key: zeros.copy()},
        )

    def is_absent(self, adata: AnnData) -> bool:
        """Whether an AnnData has no proteins at all."""
        return self.modality is None and self.key not in adata.obsm

    def panel_codes(self, adata: AnnData, panels: tuple[Scalar, ...]) -> NDArray[np.int64]:
        """Code of the panel of each cell, [cells]."""
        if self.panel_key is None:
            return np.zeros(adata.n_obs, dtype=np.int64)
        return category_codes(adata, self.panel_key, panels)

    def detection_mask(self, adata: AnnData, panels: tuple[Scalar, ...]) -> NDArray[np.bool_]:
        """Whether any cell of a panel has counts of a protein, [panels, proteins]."""
        codes, names = self.panel_codes(adata, panels), self.features(adata)
        found = np.zeros((len(panels), len(names)), dtype=bool)
        for chunk in iter_chunks(self.matrix(adata)):
            cells, proteins = chunk.coordinates(chunk.values > 0)
            found[codes[cells], proteins] = True
        return found

    def proteins_without_counts(
        self, adata: AnnData, panels: tuple[Scalar, ...]
    ) -> tuple[tuple[int, ...], ...]:
        """Positions of the proteins that are zero in all cells of a panel, for each panel.

        A panel without cells has none.
        """
        without = ~self.detection_mask(adata, panels)
        without[np.bincount(self.panel_codes(adata, panels), minlength=len(panels)) == 0] = False
        return as_positions(without)

    def find_proteins(self, adata: AnnData, axis: FeatureAxis) -> NDArray[np.int64]:
        """Index of each protein of the model in an AnnData, [proteins]; -1 if it is not there.

        Raises
        ------
        DataMismatchError
            If there are proteins, and none is one of the model, or their number differs and they
            have no names.
        """
        if self.is_absent(adata):
            return np.full(len(axis), -1, dtype=np.int64)
        names = self.features(adata)
        positions = axis.find_in(names)
        if (positions < 0).all():
            raise DataMismatchError(axis.missing_message(names, [*axis.features]))
        if (positions < 0).any() and names == tuple(map(str, range(len(names)))):
            raise DataMismatchError(
                f"Expected the {len(axis):,} proteins the model was trained on; got {len(names):,} "
                "without names, so that they cannot be matched. Give a DataFrame whose columns are "
                "the names of the proteins."
            )
        return positions

    def order(
        self, adata: AnnData, record: ProteinsRecord, axis: FeatureAxis
    ) -> NDArray[np.int64] | None:
        """Indices of the model's proteins in an AnnData, -1 for those that were not measured.

        Raises
        ------
        DataMismatchError
            If a protein is missing that was measured in the panel of some cells.
        """
        positions = self.find_proteins(adata, axis)
        missing = positions < 0
        if missing.any():
            n_cells = np.bincount(
                self.panel_codes(adata, record.panels), minlength=len(record.panels)
            )
            needed = record.measurement_mask(len(axis)) & (n_cells > 0)[:, None] & missing
            if needed.any():
                panel = record.panels[int(np.flatnonzero(needed.any(axis=1))[0])]
                names = [axis.features[i] for i in np.flatnonzero(needed.any(axis=0))]
                of_panel = "" if self.panel_key is None else f" (panel '{panel}')"
                raise DataMismatchError(
                    f"Expected the proteins that the model takes as measured{of_panel}; got "
                    f"{int((~missing).sum()):,} of the {len(axis):,} proteins of the model: "
                    f"missing {quote_names(names)}. Rename the proteins if they have other names "
                    "there, or give cells of another panel to load_query_data."
                )
        same = len(self.features(adata)) == len(axis) if not missing.all() else False
        in_order = same and bool((positions == np.arange(len(axis))).all())
        return None if in_order else positions

    def read(
        self, adata: AnnData, record: ProteinsRecord, order: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells; zeros for proteins that were not measured."""
        if self.is_absent(adata):
            assert order is not None
            return DenseColumn(np.zeros((adata.n_obs, len(order)), dtype=np.float32))
        matrix = self.matrix(adata)
        if matrix.on_disk:
            values = make_reader(matrix).read(np.arange(adata.n_obs))
        else:
            values = matrix.values
        values = values.toarray() if sparse.issparse(values) else np.asarray(values)
        if order is None or (order >= 0).all():
            return DenseColumn(values, order)
        padded = np.zeros((len(values), len(order)), dtype=np.float32)
        padded[:, order >= 0] = values[:, order[order >= 0]]
        return DenseColumn(padded)

    def extend(
        self, adata: AnnData, record: ProteinsRecord, axis: FeatureAxis | None = None
    ) -> ProteinsRecord:
        """Record for query data, with the panels that the reference does not have.

        A protein that the query lacks was not measured there, neither was one without counts in a
        new panel. In a panel of the reference, a protein counts as measured if it was there.
        """
        assert axis is not None
        panels = record.panels
        if self.panel_key is not None:
            panels = append_categories(adata, self.panel_key, record.panels)
        n_cells = np.bincount(self.panel_codes(adata, panels), minlength=len(panels))
        measured = np.zeros((len(panels), len(axis)), dtype=bool)
        measured[: len(record.panels)] = record.measurement_mask(len(axis))
        positions = self.find_proteins(adata, axis)
        present = positions >= 0
        in_query = np.zeros_like(measured)
        if present.any():
            in_query[:, present] = self.detection_mask(adata, panels)[:, positions[present]]
        here = n_cells > 0
        measured[here] = (measured[here] & present) | in_query[here]
        log_not_measured(measured[here], axis)
        return dataclasses.replace(record, panels=panels, without_counts=as_positions(~measured))

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
            fill_absent=self.fill_absent,
        )


def as_positions(mask: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """Positions of the true values of each row of a mask."""
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in mask)


def log_not_measured(measured: NDArray[np.bool_], axis: FeatureAxis) -> None:
    """Log how many proteins of the model were not measured in the panels of a query."""
    n = int((~measured).any(axis=0).sum())
    if n:
        logger.info(
            "%s of the %s proteins of the model are taken as not measured in panels of the query.",
            f"{n:,}",
            f"{len(axis):,}",
        )
