"""MultiVI: a variational autoencoder of genes, chromatin and proteins (Ashuach et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from cellvae.data import Registration
from cellvae.data.setup.fields import Field, ProteinsRecord
from cellvae.data.setup.fields.multimodal_keys import MultimodalKeys, multimodal_fields
from cellvae.data.setup.tables.feature_types import find_feature_types
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.estimator.minify import minify_mudata
from cellvae.estimator.model import Model
from cellvae.estimator.reference_mapping import ReferenceMappingMixin, prepare_query_mudata
from cellvae.inference import (
    differential_abundance,
    differential_accessibility,
    get_aggregated_posterior,
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
from cellvae.inference.proteins.modality_foreground import get_modality_foreground_probability
from cellvae.inference.proteins.protein_table import protein_table
from cellvae.model.components.multimodal_files import (
    check_multimodal_export,
    import_multimodal_options,
    import_multimodal_setup,
    mudata_registration,
    multimodal_placeholders,
)
from cellvae.model.networks.multivi_module import MULTIVIBatch, MULTIVIModule
from cellvae.model.networks.multivi_network import MODALITIES, MULTIVIConfig, MULTIVISizes
from cellvae.model.peakvi import atac_train_defaults

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice
    from cellvae.train.options.train_kwargs import ParsedTrainKwargs

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
        If an option is misspelt or has an invalid value.

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
    scvi_exportable: ClassVar[bool] = True

    setup_mudata: ClassVar[Callable[..., None]]

    get_latent_representation = get_modality_latent
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_marginal_ll = get_marginal_ll
    get_normalized_expression = get_modality_expression
    get_normalized_accessibility = get_normalized_accessibility
    get_protein_foreground_probability = get_modality_foreground_probability
    differential_expression = differential_modality_expression
    differential_accessibility = differential_accessibility
    get_library_size_factors = get_size_factors
    get_region_factors = get_region_factors
    get_aggregated_posterior = get_aggregated_posterior
    differential_abundance = differential_abundance
    prepare_query_mudata: ClassVar[Any] = classmethod(prepare_query_mudata)
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
        for name in ("n_genes", "n_regions"):
            given, found = getattr(config, name), getattr(sizes, name)
            if given is not None and given != found:
                raise InvalidOptionError(
                    f"Expected {name}={found:,}, which are in the data; got {given:,}. Leave it "
                    "out, or set up the data with other features."
                )
        return MULTIVIModule(sizes, config)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.module.sizes.n_genes

    @property
    def n_regions(self) -> int:
        """Number of regions of chromatin."""
        return self.module.sizes.n_regions

    @property
    def n_proteins(self) -> int:
        """Number of proteins."""
        return self.module.sizes.n_proteins

    def read(self, adata: AnnData, *, new: bool) -> ColumnRows[Any]:
        """Rows of an AnnData, its features and categories matched by name.

        Raises
        ------
        DataMismatchError
            If each cell has weights of its own, and these are not the cells of the model.
        """
        rows = super().read(adata, new=new)
        if self.config.modality_weights != "cell":
            return rows
        n_cells = self.registration.n_cells
        names = self.cell_names
        if len(rows) != n_cells or not (names is None or adata.obs_names.equals(names)):
            raise DataMismatchError(
                f"Expected the {n_cells:,} cells of the model in their order, each of which has "
                f"weights of its own (modality_weights='cell'); got {len(rows):,} cells"
                f"{' of other names' if len(rows) == n_cells else ''}. Give indices for some of "
                "them; for other cells, make the model with modality_weights='universal'."
            )
        positions = CategoricalColumn(np.arange(n_cells)[:, None])
        return ColumnRows({**rows.columns, "cell_index": positions}, rows.batch_type)

    def check_reference(self) -> None:
        """Refuse a model that no query can be mapped onto.

        Raises
        ------
        InvalidOptionError
            If each cell has weights of its own, which the cells of a query do not have.
        """
        if self.config.modality_weights == "cell":
            raise InvalidOptionError(
                "Expected a reference with weights that hold for other cells too; got "
                "modality_weights='cell', weights of its own cells. Make the reference with "
                "'equal' or 'universal'."
            )

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse a model that scvi-tools cannot make."""
        check_multimodal_export(self.module)

    def scvi_registration(self) -> Registration[MultimodalKeys]:
        """Registration as scvi-tools stores it: since 1.4, that of a MuData."""
        return mudata_registration(self.registration)

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them."""
        return multimodal_placeholders(self.module)

    @classmethod
    def import_scvi_setup(
        cls, setup: Mapping[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments of the set-up of a model of scvi-tools; up to 1.3 that of an AnnData."""
        return import_multimodal_setup(setup, options)

    @classmethod
    def import_scvi_options(cls, options: Mapping[str, Any], version: str) -> dict[str, Any]:
        """Options of a model of scvi-tools, as its version understood them."""
        return import_multimodal_options(options, version)

    @classmethod
    def import_scvi_weights(
        cls, weights: Mapping[str, Tensor], module: nn.Module
    ) -> dict[str, Tensor]:
        """Weights of a file of scvi-tools; before 0.18 modalities had none, which is equal ones."""
        return {"mod_weights": torch.ones(len(MODALITIES)), **weights}

    def parse_train_kwargs(self, kwargs: Mapping[str, Any]) -> ParsedTrainKwargs:
        """Options and callbacks of a run.

        `adversarial_mixing`, as scvi-tools has it, is another name of `adversarial_classifier`;
        True asks for no classifier where there is one batch.
        """
        kwargs = dict(kwargs)
        mixing = kwargs.pop("adversarial_mixing", None)
        if mixing is not None and (self.module.n_adversarial_classes > 1 or mixing is not True):
            kwargs.setdefault("adversarial_classifier", mixing)
        return super().parse_train_kwargs(kwargs)

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
            foreground = get_modality_foreground_probability(model, silent=True)
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
