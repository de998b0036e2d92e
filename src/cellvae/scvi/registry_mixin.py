"""Methods by which notebooks of scvi-tools ask a model about its set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellvae.scvi.adata_manager import AnnDataManager, read_field
from cellvae.scvi.registry import AttrDict, lookup, make_registry
from cellvae.scvi.setup_tables import print_setup_tables

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.scvi.protocols import RegisteredModel


class RegistryMixin:
    """Set-up of a model in the form of scvi-tools."""

    @property
    def registry(self: RegisteredModel) -> dict[str, Any]:
        """Arguments of the set-up, and what was found in the data, in the form of scvi-tools."""
        return make_registry(self)

    @property
    def adata_manager(self: RegisteredModel) -> AnnDataManager:
        """Set-up of the model as scvi-tools' AnnDataManager presents it."""
        return AnnDataManager(self)

    def get_from_registry(self: RegisteredModel, adata: AnnData, registry_key: str) -> Any:
        """Values of a field for cells, as :meth:`AnnDataManager.get_from_registry` returns them.

        Parameters
        ----------
        adata
            Cells that were set up.
        registry_key
            Name of the field in scvi-tools: one of `cellvae.REGISTRY_KEYS`.
        """
        return read_field(self, adata, registry_key)

    def get_state_registry(self: RegisteredModel, registry_key: str) -> AttrDict:
        """What was found in the data for a field: categories and columns."""
        return AnnDataManager(self).get_state_registry(registry_key)

    def data_registry(self: RegisteredModel, registry_key: str) -> AttrDict:
        """Attribute and key of the AnnData that a field is read from."""
        return AttrDict(lookup(AnnDataManager(self).data_registry, registry_key))

    def get_setup_arg(self: RegisteredModel, setup_arg: str) -> Any:
        """Value of an argument of `setup_anndata`; None if it was not given."""
        return lookup(make_registry(self)["setup_args"], setup_arg)

    def get_var_names(self: RegisteredModel) -> np.ndarray:
        """Genes of the model, in its order, [genes]."""
        return np.array(self.registration.genes, dtype=object)

    def view_registry(self: RegisteredModel, hide_state_registries: bool = False) -> None:
        """Print what the model reads, and the categories that it knows."""
        print_setup_tables(
            type(self).__name__, self.registration, categories=not hide_state_registries
        )
