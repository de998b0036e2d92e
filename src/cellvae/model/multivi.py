"""MultiVI: a variational autoencoder of genes, chromatin and proteins (Ashuach et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from cellvae.data import Registration
from cellvae.data.setup.fields import Field, ProteinsRecord
from cellvae.data.setup.fields.multimodal_keys import MultimodalKeys, multimodal_fields
from cellvae.data.setup.tables.feature_types import find_feature_types
from cellvae.errors import InvalidOptionError
from cellvae.estimator.minify import minify_mudata
from cellvae.estimator.model import Model
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import (
    differential_accessibility,
    get_elbo,
    get_marginal_ll,
    get_normalized_accessibility,
    get_reconstruction_error,
    get_region_factors,
)
from cellvae.inference.accessibility.region_table import variable_regions
from cellvae.inference.modalities.modality_differential import differential_modality_expression
from cellvae.inference.modalities.modality_expression import get_modality_expression
from cellvae.inference.modalities.modality_latent import get_modality_latent
from cellvae.inference.modalities.size_factors import get_size_factors
from cellvae.inference.proteins.background import get_protein_foreground_probability
from cellvae.inference.proteins.protein_table import protein_table
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MULTIVIConfig, MULTIVISizes
from cellvae.model.peakvi import atac_train_defaults

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

N_LISTED_REGIONS = 20
"""Regions that a report lists."""


@final
class MULTIVI(ReferenceMappingMixin, Model):
    """Variational autoencoder of genes, regions of chromatin and surface proteins (MultiVI).

    Cells may have any of the modalities: those that are absent are imputed. A modality is taken as
    absent in cells without a count in it.

    Parameters
    ----------
    adata
        MuData that was set up by :meth:`setup_mudata`, or AnnData by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`MULTIVIConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has an invalid value. Weights of each cell
        (`modality_weights="cell"`) are not available yet.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> adata.var["feature_types"] = ["Gene Expression"] * 60 + ["Peaks"] * 40
    >>> cellvae.model.MULTIVI.setup_anndata(adata, batch_key="batch")
    >>> model = cellvae.model.MULTIVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_normalized_accessibility(silent=True).shape
    (400, 40)

    References
    ----------
    Ashuach, Gabitto, Koodli, Saldi, Jordan, Yosef (2023): MultiVI: deep generative model for the
    integration of multimodal data. Nature Methods 20, 1222.
    """

    Config: ClassVar[type[MULTIVIConfig]] = MULTIVIConfig
    Keys: ClassVar[type[MultimodalKeys]] = MultimodalKeys
    Batch: ClassVar[type[MULTIVIBatch]] = MULTIVIBatch
    config: MULTIVIConfig
    module: MULTIVIModule
    latent_key: ClassVar[str] = "X_multiVI"

    setup_mudata: ClassVar[Callable[..., None]]

    get_latent_representation = get_modality_latent
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_marginal_ll = get_marginal_ll
    get_normalized_expression = get_modality_expression
    get_normalized_accessibility = get_normalized_accessibility
    get_protein_foreground_probability = get_protein_foreground_probability
    differential_expression = differential_modality_expression
    differential_accessibility = differential_accessibility
    get_library_size_factors = get_size_factors
    get_region_factors = get_region_factors
    minify_mudata = minify_mudata

    @classmethod
    def keys_of_setup(cls, adata: AnnData, kwargs: Mapping[str, Any]) -> MultimodalKeys:
        """Keys from the arguments of a set-up, with the types of features of an AnnData."""
        types = () if kwargs.get("modalities") else find_feature_types(adata)
        keys: MultimodalKeys = super().keys_of_setup(adata, {**kwargs, "feature_types": types})
        return keys

    @staticmethod
    def fields(keys: MultimodalKeys) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData or a MuData."""
        return multimodal_fields(keys)

    @staticmethod
    def build(registration: Registration, config: MULTIVIConfig) -> MULTIVIModule:
        """Network for these data and options."""
        if config.modality_weights == "cell":
            raise InvalidOptionError(
                "Expected modality_weights 'equal' or 'universal'; got 'cell', weights of each "
                "cell, which are not available yet."
            )
        keys = registration.keys
        n_proteins = registration.n_features("proteins")
        panels: tuple[tuple[bool, ...], ...] = ()
        if n_proteins:
            measured = registration.record("proteins", ProteinsRecord).measurement_mask(n_proteins)
            panels = tuple(map(tuple, measured.tolist()))
        sizes = MULTIVISizes(
            n_genes=registration.n_features("genes"),
            n_regions=registration.n_features("regions"),
            n_proteins=n_proteins,
            n_cells=registration.n_cells,
            n_batch=registration.n_categories("batch"),
            n_labels=registration.n_categories("labels"),
            n_cats_per_cov=registration.n_categories_by_key("categorical"),
            n_continuous=len(keys.continuous_covariate_keys),
            size_factor=len(keys.size_factor_key) > 0,
            region_size_factor=len(keys.size_factor_key) > 1,
            panels=panels,
        )
        return MULTIVIModule(sizes, config)

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """As PEAKVI: AdamW with lr 1e-4, 500 epochs, KL warm-up of 50, patience 50.

        Early stopping follows the reconstruction loss of the validation cells, as in scvi-tools.
        """
        defaults = atac_train_defaults(kwargs)
        if {**defaults, **kwargs}.get("early_stopping"):
            defaults["early_stopping_monitor"] = "reconstruction_loss_validation"
        return defaults

    def cell_tables(self) -> dict[str, Any]:
        """Sizes and foreground of proteins of all cells, as the command line stores them."""
        import pandas as pd

        assert self.adata is not None
        model: Any = self
        names = self.adata.obs_names
        sizes = get_size_factors(model, silent=True)
        tables: dict[str, Any] = {"library_size_factors": pd.DataFrame(sizes, index=names)}
        if "protein" in self.module.outputs:
            foreground = get_protein_foreground_probability(model, silent=True)
            tables["protein_foreground_probability"] = foreground
        return {key: table for key, table in tables.items() if table.shape[1]}

    def feature_tables(self, adata: AnnData | None, indices: CellChoice) -> dict[str, pd.DataFrame]:
        """Tables of the regions that differ most between cells, and of the proteins."""
        model: Any = self
        tables = {}
        if "accessibility" in self.module.outputs:
            found = variable_regions(model, adata, indices, N_LISTED_REGIONS)
            tables[f"The {len(found):,} regions that differ most"] = found
        if "protein" in self.module.outputs:
            panels = self.module.in_panel
            if panels is None:
                panels = torch.ones(1, self.registration.n_features("proteins"))
            tables["Proteins"] = protein_table(model, adata, indices, panels)
        return tables
