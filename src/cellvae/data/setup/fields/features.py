"""Continuous features of every cell that are no counts, such as a latent representation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from cellvae.core.files.json_object import JsonObject
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.fields.counts import make_count_column
from cellvae.data.setup.fields.field import Field, FieldRecord, ScviField
from cellvae.data.storage.chunks import iter_chunks
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.data.storage.column import Column


@final
@dataclass(frozen=True, kw_only=True)
class FeaturesRecord(FieldRecord):
    """Layer of the features; None for `adata.X`."""

    kind: ClassVar[str] = "features"
    layer: str | None = None
    modality: str | None = None

    def to_json(self) -> dict[str, object]:
        """JSON object, with the type of the record in `kind`."""
        return {"kind": self.kind, "layer": self.layer}

    @classmethod
    def from_json(cls, entries: JsonObject) -> FeaturesRecord:
        """Record from the entries of a JSON object."""
        return cls(layer=entries.optional_string("layer"))

    def field(self, name: str) -> Field:
        """Field that the record describes."""
        return Features(name, self.layer)

    def describe(self) -> tuple[str, str]:
        """Where the field is read from, and what was found there, for a table."""
        return f"layers['{self.layer}']" if self.layer else "X", "continuous values"

    def scvi_registry(self, scvi_name: str, axis: FeatureAxis | None, n_cells: int) -> ScviField:
        """Registry of the field, as scvi-tools stores it."""
        names = () if axis is None else axis.features
        state = {
            "n_obs": n_cells,
            "n_vars": len(names),
            "column_names": np.array(names, dtype=object),
        }
        location = {"attr_name": "layers" if self.layer else "X", "attr_key": self.layer}
        return ScviField(location, state, {})


@final
@dataclass(frozen=True)
class Features(Field):
    """Continuous features from `adata.X` or a layer, of any sign: [cells, features]."""

    axis: ClassVar[str | None] = "features"
    name: str = "features"
    layer: str | None = None
    modality: str | None = None

    def describe(self, adata: AnnData) -> FeaturesRecord:
        """Record of the field in an AnnData, after a check of all values."""
        self.check(adata, None)
        return FeaturesRecord(layer=self.layer)

    def check(self, adata: AnnData, record: Any) -> None:
        """Refuse values that are NaN or infinite.

        Raises
        ------
        InvalidDataError
            If there are any; the message says how many.
        """
        matrix = count_matrix(adata, self.layer)
        n = sum(int(np.count_nonzero(~np.isfinite(c.values))) for c in iter_chunks(matrix))
        if n:
            raise InvalidDataError(
                f"Expected finite values in {matrix.where}; got {n:,} that are NaN or infinite. "
                "Leave out the cells or features that have them."
            )

    def read(
        self, adata: AnnData, record: FeaturesRecord, order: NDArray[np.int64] | None
    ) -> Column:
        """Column of all cells, which shares memory with the matrix of the AnnData if possible."""
        return make_count_column(count_matrix(adata, self.layer), order)

    def features(self, adata: AnnData) -> tuple[str, ...]:
        """Names of the features in an AnnData."""
        return tuple(map(str, adata.var_names))

    def import_scvi(self, state: Mapping[str, Any], to_categories: Any) -> FeaturesRecord:
        """Record from the state registry of scvi-tools."""
        return FeaturesRecord(layer=self.layer)
