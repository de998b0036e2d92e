"""MultiVI: a variational autoencoder of genes, chromatin and proteins (Ashuach et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from cellvae.data import Registration
from cellvae.data.setup.fields import Field, ProteinsRecord
from cellvae.data.setup.fields.multimodal_keys import MultimodalKeys, multimodal_fields
from cellvae.data.setup.keys import check_modalities, keys_from_kwargs
from cellvae.data.setup.tables.feature_types import find_feature_types
from cellvae.errors import InvalidOptionError, did_you_mean, quote_names
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
    from mudata import MuData

    from cellvae.inference.protocols import CellChoice

TABLES = ("rna_layer", "atac_layer", "protein_layer")
"""Arguments of `setup_mudata` whose modalities are tables of counts."""
COLUMNS = (
    "batch_key",
    "size_factor_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
)
"""Arguments of `setup_mudata` that may have a modality."""
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
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | Sequence[str] | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        protein_expression_obsm_key: str | None = None,
        protein_names_uns_key: str | None = None,
    ) -> None:
        """Check the counts, and record which features are genes and regions and where the rest is.

        Only these arguments are stored, in `adata.uns["cellvae"]`; nothing else is changed.

        Parameters
        ----------
        adata
            Cells, with counts of genes and regions in one matrix, in any order. Their types,
            `"Gene Expression"` and `"Peaks"`, are in `var["feature_types"]`; other features are
            left out.
        layer
            Layer that holds the counts; None for `X`.
        batch_key
            Column of `adata.obs` with the batch of each cell.
        size_factor_key
            Columns of `adata.obs` as in :meth:`setup_mudata`.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of `adata.obs` with categories and numbers to correct for.
        protein_expression_obsm_key
            Entry of `adata.obsm` with the counts of proteins; None for no proteins.
        protein_names_uns_key
            Entry of `adata.uns` with the names of the proteins; by default the columns of the
            DataFrame, or numbers.

        Raises
        ------
        UnknownKeyError
            If there is no `var["feature_types"]`, or a column, a layer or an entry does not exist.
        InvalidDataError
            If no feature is a gene or a region, or as for :meth:`setup_mudata`.
        """
        kwargs = {
            "layer": layer,
            "feature_types": find_feature_types(adata),
            "batch_key": batch_key,
            "size_factor_key": as_names(size_factor_key),
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
            "protein_expression_obsm_key": protein_expression_obsm_key,
            "protein_names_uns_key": protein_names_uns_key,
        }
        cls.register(adata, keys_from_kwargs(kwargs, cls.Keys))

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        rna_layer: str | None = None,
        atac_layer: str | None = None,
        protein_layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | Sequence[str] | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        modalities: Mapping[str, str | None] | None = None,
    ) -> None:
        """Check the counts in the modalities of a MuData, and record where the rest is.

        Only these arguments are stored, in `mdata.uns["cellvae"]`; nothing else is changed.

        Parameters
        ----------
        mdata
            Cells that have some or all of the modalities.
        rna_layer, atac_layer, protein_layer
            Layers with the counts of genes, regions and proteins; None for `X`.
        batch_key
            Column of `obs` with the batch of each cell.
        size_factor_key
            Columns of `obs` with the library size of the genes of each cell and, if there are two,
            the probability that an accessible region of it is detected.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of `obs` with categories and numbers to correct for.
        modalities
            Modality of each of these arguments, by its name. The tables that are read are those of
            `rna_layer`, `atac_layer` and `protein_layer` that have one; columns without one are
            those of `mdata.obs`.

        Raises
        ------
        UnknownKeyError
            If a modality, a column or a layer does not exist.
        InvalidOptionError
            If `modalities` has no table, or has an entry that is no argument.
        InvalidDataError
            If counts are missing, infinite or negative, a key column has missing values, or names
            of features repeat.
        """
        given = check_modalities(modalities)
        known = (*TABLES, *COLUMNS)
        for name in given:
            if name not in known:
                raise InvalidOptionError(
                    f"Expected modalities of {quote_names(known, most=20)}; got '{name}'."
                    f"{did_you_mean(name, known)}"
                )
        if not any(name in given for name in TABLES):
            raise InvalidOptionError(
                f"Expected a modality for some of {quote_names(TABLES)} in modalities; got none. "
                "Give for example modalities={'rna_layer': 'rna', 'atac_layer': 'atac'}."
            )
        kwargs = {
            "layer": rna_layer,
            "atac_layer": atac_layer,
            "protein_layer": protein_layer,
            "batch_key": batch_key,
            "size_factor_key": as_names(size_factor_key),
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
            "modalities": given,
        }
        cls.register(mdata, keys_from_kwargs(kwargs, cls.Keys))

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


def as_names(value: str | Sequence[str] | None) -> Sequence[str] | None:
    """Names as a sequence, of one name too."""
    return (value,) if isinstance(value, str) else value
