"""totalVI: a variational autoencoder of genes and surface proteins (Gayoso, Steier et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cellvae.core.log import warn
from cellvae.data import Registration
from cellvae.data.setup.fields import Field
from cellvae.data.setup.fields.protein_keys import ProteinKeys, protein_fields
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import DataWarning, InvalidOptionError, count_noun, did_you_mean
from cellvae.estimator.minify import minify_mudata
from cellvae.estimator.model import Model
from cellvae.estimator.reference_mapping import ReferenceMappingMixin, prepare_query_mudata
from cellvae.inference import (
    differential_abundance,
    get_aggregated_posterior,
    get_elbo,
    get_latent_library_size,
    get_latent_representation,
    get_likelihood_parameters,
    get_marginal_ll,
    get_reconstruction_error,
)
from cellvae.inference.proteins.background import (
    get_protein_background_mean,
    get_protein_foreground_probability,
)
from cellvae.inference.proteins.joint_differential import differential_joint_expression
from cellvae.inference.proteins.joint_expression import get_joint_expression
from cellvae.inference.proteins.joint_samples import (
    get_joint_correlation_matrix,
    joint_posterior_predictive_sample,
)
from cellvae.inference.proteins.protein_table import protein_table
from cellvae.model.components.default_early_stopping import (
    default_early_stopping,
    has_validation_cells,
)
from cellvae.model.components.scvi_placeholders import gene_protein_placeholders
from cellvae.model.networks.totalvi_batch import TOTALVIBatch
from cellvae.model.networks.totalvi_config import TOTALVIConfig, TOTALVISizes
from cellvae.model.networks.totalvi_module import TOTALVIModule, init_from_data

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.inference.protocols import CellChoice


class TOTALVI(ReferenceMappingMixin, Model):
    """Variational autoencoder of genes and surface proteins of the same cells (totalVI).

    The counts of a protein are a mixture of background and foreground. Proteins that are zero in
    all cells of a panel (by default, of a batch) are taken as not measured there, and imputed.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`, or MuData by :meth:`setup_mudata`.
    **config
        Options of the network: see :class:`TOTALVIConfig`.

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
    >>> cellvae.model.TOTALVI.setup_anndata(
    ...     adata, protein_expression_obsm_key="protein_expression", batch_key="batch"
    ... )
    >>> model = cellvae.model.TOTALVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> genes, proteins = model.get_normalized_expression()
    >>> proteins.shape
    (400, 100)

    References
    ----------
    Gayoso, Steier, Lopez, Regier, Nazor, Streets, Yosef (2021): Joint probabilistic modeling of
    single-cell multi-omic data with totalVI. Nature Methods 18, 272.
    """

    Config: ClassVar[type[TOTALVIConfig]] = TOTALVIConfig
    Keys: ClassVar[type[ProteinKeys]] = ProteinKeys
    Batch: ClassVar[type[TOTALVIBatch]] = TOTALVIBatch
    config: TOTALVIConfig
    module: TOTALVIModule
    latent_key: ClassVar[str] = "X_totalVI"
    scvi_exportable: ClassVar[bool] = True
    cellvae_only_options: ClassVar[tuple[str, ...]] = ("missing_proteins",)
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"get_importance_weights": "use get_marginal_ll, which weights samples by importance"}
    )

    setup_mudata: ClassVar[Callable[..., None]]

    get_latent_representation = get_latent_representation
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_marginal_ll = get_marginal_ll
    get_aggregated_posterior = get_aggregated_posterior
    differential_abundance = differential_abundance
    get_latent_library_size = get_latent_library_size
    get_likelihood_parameters = get_likelihood_parameters
    get_normalized_expression = get_joint_expression
    get_protein_foreground_probability = get_protein_foreground_probability
    get_protein_background_mean = get_protein_background_mean
    differential_expression = differential_joint_expression
    posterior_predictive_sample = joint_posterior_predictive_sample
    get_feature_correlation_matrix = get_joint_correlation_matrix
    minify_mudata = minify_mudata
    prepare_query_mudata: ClassVar[Any] = classmethod(prepare_query_mudata)

    @staticmethod
    def fields(keys: ProteinKeys) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData or a MuData."""
        return protein_fields(keys)

    @staticmethod
    def build(registration: Registration, config: TOTALVIConfig) -> TOTALVIModule:
        """Network for these data and options."""
        return TOTALVIModule(sizes_of(registration, config), config)

    @staticmethod
    def init_from_data(module: TOTALVIModule, rows: ColumnRows[TOTALVIBatch]) -> None:
        """Set the prior of the background of proteins, and of a latent library size."""
        init_from_data(module, rows)

    def __init__(self, adata: AnnData, **config: Any) -> None:
        super().__init__(adata, **config)
        n_missing = int((~self.module.measured_by_panel).any(dim=1).sum())
        if n_missing:
            warn(
                f"Expected counts of every protein in every panel; got proteins that are zero in "
                f"all cells of {count_noun(n_missing, 'panel')}. They are taken as not measured "
                "there. If they were, give override_missing_proteins=True.",
                DataWarning,
            )

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Early stopping, a plateau schedule, batches of 256 cells and a learning rate of 4e-3."""
        defaults = default_early_stopping(kwargs, patience=45)
        # The schedule follows a metric of validation cells.
        plan = {"lr": 4e-3, "reduce_lr_on_plateau": has_validation_cells(kwargs)}
        return {"batch_size": 256, "plan_kwargs": plan, **defaults}

    def cell_tables(self) -> dict[str, Any]:
        """Denoised proteins and their foreground probabilities, as the command line stores them."""
        genes = self.registration.genes[:1]
        model: Any = self
        _, proteins = model.get_normalized_expression(gene_list=genes, silent=True)
        foreground = model.get_protein_foreground_probability(silent=True)
        return {"denoised_protein": proteins, "protein_foreground_probability": foreground}

    def feature_tables(self, adata: AnnData | None, indices: CellChoice) -> dict[str, pd.DataFrame]:
        """Table of the proteins: in how many panels and cells they are, and at which level."""
        panels = self.module.measured_by_panel
        model: Any = self
        return {"Proteins": protein_table(model, adata, indices, panels)}

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them."""
        return gene_protein_placeholders(weights)

    @classmethod
    def import_scvi_weights(
        cls, weights: Mapping[str, Tensor], module: nn.Module
    ) -> dict[str, Tensor]:
        """Weights of a file of scvi-tools; before 1.3.1 all capture efficiencies were one."""
        name = "log_per_batch_efficiency"
        return {name: torch.zeros_like(module.state_dict()[name], device="cpu"), **weights}

    @classmethod
    def import_scvi_options(cls, options: Mapping[str, Any], version: str) -> dict[str, Any]:
        """Options of a model of scvi-tools; before 1.2 the background was activated by `exp`."""
        options = dict(options)
        if [*map(int, version.split(".")[:2])] < [1, 2] and not options.get("extra_decoder_kwargs"):
            options["extra_decoder_kwargs"] = {"activation_function_bg": "exp"}
        return options


def sizes_of(registration: Registration, config: TOTALVIConfig) -> TOTALVISizes:
    """Sizes of the network for these data.

    Raises
    ------
    InvalidOptionError
        If size factors are requested and none were set up.
    """
    keys = registration.keys
    given = keys.size_factor_key is not None
    if config.use_size_factor_key and not given:
        raise InvalidOptionError(
            "use_size_factor_key=True needs size factors: call "
            "setup_anndata(adata, size_factor_key=...) first."
        )
    n_proteins = registration.n_features("proteins")
    proteins: Any = registration.fields["proteins"]
    measured = None
    if not config.override_missing_proteins:
        mask = proteins.measurement_mask(n_proteins)
        apply_missing_proteins(mask, registration, config.missing_proteins or {})
        measured = tuple(map(tuple, mask.tolist()))
    return TOTALVISizes(
        n_genes=registration.n_genes,
        n_proteins=n_proteins,
        n_batch=registration.n_categories("batch"),
        n_labels=registration.n_categories("labels"),
        n_cats_per_cov=registration.n_categories_by_key("categorical"),
        n_continuous=len(keys.continuous_covariate_keys),
        size_factor=given if config.use_size_factor_key is None else config.use_size_factor_key,
        n_panels=registration.n_categories("panel"),
        measured=measured,
    )


def apply_missing_proteins(
    measured: NDArray[np.bool_], registration: Registration, missing: Mapping[str, Any]
) -> None:
    """Set which proteins were measured in the panels that the user named, in place.

    Parameters
    ----------
    measured
        Which proteins were measured, [panels, proteins].
    registration
        Names of panels and proteins.
    missing
        Names of the proteins that were not measured, by panel.

    Raises
    ------
    InvalidOptionError
        If there is no such panel or protein.
    """
    panels = [str(panel) for panel in registration.categories("panel")]
    proteins = registration.axes["proteins"].features
    for panel, names in missing.items():
        for name, known in ((panel, panels), *((name, proteins) for name in names)):
            if name not in known:
                raise InvalidOptionError(
                    "Expected panels and proteins of the data in missing_proteins; got "
                    f"'{name}'.{did_you_mean(name, known)}"
                )
        row = measured[panels.index(panel)]
        row[:] = [protein not in names for protein in proteins]
