"""Set-up and cells of a model, as scvi-tools' AnnDataManager presents them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from cellvae.data.storage.count_matrix import count_matrix
from cellvae.errors import DataMismatchError, UnknownKeyError
from cellvae.scvi.registry import AttrDict, lookup, make_registry, scvi_field_name
from cellvae.scvi.setup_tables import print_setup_tables

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.scvi.protocols import RegisteredModel


class AnnDataManager:
    """What a model reads from its AnnData, in the form of scvi-tools.

    Parameters
    ----------
    model
        The model; nothing is copied from it.
    """

    def __init__(self, model: RegisteredModel) -> None:
        self.model = model

    @property
    def adata(self) -> AnnData | None:
        """Cells of the model."""
        return self.model.adata

    @property
    def registry(self) -> dict[str, Any]:
        """Arguments of the set-up, and what was found in the data."""
        return make_registry(self.model)

    @property
    def data_registry(self) -> AttrDict:
        """Attribute and key of the AnnData that each field is read from."""
        return AttrDict(
            (name, AttrDict(field["data_registry"]))
            for name, field in self.registry["field_registries"].items()
            if field["data_registry"]
        )

    @property
    def summary_stats(self) -> AttrDict:
        """Numbers of cells, genes and categories."""
        registration = self.model.registration
        n_cells = registration.n_cells if self.adata is None else int(self.adata.n_obs)
        stats = AttrDict(n_cells=n_cells, n_vars=registration.n_genes)
        for field in self.registry["field_registries"].values():
            stats |= field["summary_stats"]
        return stats

    def get_state_registry(self, registry_key: str) -> AttrDict:
        """What was found in the data for a field: categories and columns."""
        fields = self.registry["field_registries"]
        return AttrDict(lookup(fields, registry_key)["state_registry"])

    def get_from_registry(self, registry_key: str) -> Any:
        """Values of a field for the cells of the model.

        Returns
        -------
        The count matrix as it is stored; codes of a category or size factors, [cells, 1]; a table
        of several covariates, [cells, covariates].

        Raises
        ------
        UnknownKeyError
            If the model reads no such field.
        DataMismatchError
            If the model has no cells.
        """
        if self.adata is None:
            raise DataMismatchError("The model was loaded without cells. Load it with adata=...")
        return read_field(self.model, self.adata, registry_key)

    def view_registry(self, hide_state_registries: bool = False) -> None:
        """Print what the model reads."""
        print_setup_tables(
            type(self.model).__name__, self.model.registration, categories=not hide_state_registries
        )


def read_field(model: RegisteredModel, adata: AnnData, registry_key: str) -> Any:
    """Values of a field of a model for cells, as :meth:`AnnDataManager.get_from_registry` does.

    Raises
    ------
    UnknownKeyError
        If the model reads no such field, or it was not set up.
    """
    lookup(make_registry(model)["field_registries"], registry_key)
    registration = model.registration
    name = next(name for name in registration.fields if scvi_field_name(name) == registry_key)
    record: Any = registration.fields[name]
    if record.holds_counts and hasattr(record, "layer"):
        return count_matrix(adata, record.layer).values
    field = next(f for f in model.fields(registration.keys) if f.name == name)
    column: Any = field.read(field.table(adata), record, None)
    if column is None:
        raise UnknownKeyError(
            f"Expected a field that was set up; {type(model).__name__} has no '{registry_key}'."
        )
    values = column.take(torch.arange(len(column))).numpy()
    if (
        len(values)
        and record.scvi_registry(registry_key, None, 0).data_registry["attr_name"] == "obs"
    ):
        return values
    return pd.DataFrame(values, index=adata.obs_names, columns=[*record.keys])
