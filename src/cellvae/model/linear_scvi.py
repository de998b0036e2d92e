"""LDVAE: scVI with a linear, interpretable decoder (Svensson et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, final

from torch import Tensor

from cellvae.data import Registration
from cellvae.inference import differential_expression, get_loadings
from cellvae.model.components.scvi_placeholders import (
    library_encoder_placeholders,
    linear_dropout_placeholders,
)
from cellvae.model.count_model import CountModel
from cellvae.model.networks.linear_scvi_module import LinearSCVIConfig, LinearSCVIModule
from cellvae.model.networks.scvi_module import sizes_of


@final
class LinearSCVI(CountModel):
    """Variational autoencoder of counts with a linear decoder, whose loadings are interpretable.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`LinearSCVIConfig`.

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
    >>> cellvae.model.LinearSCVI.setup_anndata(adata, batch_key="batch")
    >>> model = cellvae.model.LinearSCVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_loadings().shape
    (100, 5)

    References
    ----------
    Svensson, Gayoso, Yosef, Pachter (2020): Interpretable factor models of single-cell RNA-seq via
    variational autoencoders. Bioinformatics 36, 3418.
    """

    Config: ClassVar[type[LinearSCVIConfig]] = LinearSCVIConfig
    config: LinearSCVIConfig
    module: LinearSCVIModule
    first_setup_arguments: ClassVar[tuple[str, ...]] = ("batch_key", "labels_key", "layer")
    scvi_keys = first_setup_arguments
    scvi_values: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        dict.fromkeys(("n_hidden", "n_latent", "n_layers", "dropout_rate", "gene_likelihood"), ())
        | dict.fromkeys(("use_observed_lib_size", "latent_distribution"), ())
        | {"dispersion": ("gene", "gene-batch")}
    )

    get_loadings = get_loadings
    differential_expression = differential_expression

    @staticmethod
    def build(registration: Registration, config: LinearSCVIConfig) -> LinearSCVIModule:
        """Network for these data and options."""
        return LinearSCVIModule(sizes_of(registration, config), config)

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them."""
        library = library_encoder_placeholders(weights, self.config.n_hidden)
        return library | linear_dropout_placeholders(weights)
