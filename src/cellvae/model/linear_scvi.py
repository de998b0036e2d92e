"""LDVAE: scVI with a linear, interpretable decoder (Svensson et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.data import Registration
from cellvae.errors import InvalidOptionError, quote_names
from cellvae.inference import (
    differential_expression,
    get_loadings,
)
from cellvae.model.components.scvi_placeholders import library_encoder_placeholders
from cellvae.model.count_model import CountModel
from cellvae.model.scvi import SCVIConfig, SCVIModule, sizes_of
from cellvae.nn import LinearDecoder

SCVI_OPTIONS = (
    "n_hidden",
    "n_latent",
    "n_layers",
    "dropout_rate",
    "dispersion",
    "gene_likelihood",
    "use_observed_lib_size",
    "latent_distribution",
)
"""Options of LinearSCVI in scvi-tools, which has no covariates there except the batch."""


@dataclass(frozen=True, kw_only=True)
class LinearSCVIConfig(SCVIConfig):
    """Options of :class:`LinearSCVI`: those of scVI, and of the linear decoder.

    Parameters
    ----------
    n_layers
        Hidden layers of the encoder; the decoder has none.
    gene_likelihood
        Distribution of the counts.
    use_observed_lib_size
        Whether the library size is the sum of the counts; otherwise it is a latent variable.
    use_layer_norm
        Whether the encoder has layer normalization; the linear decoder never has.
    bias
        Whether the decoder has a bias for each gene.
    """

    gene_likelihood: Literal["zinb", "nb", "poisson"] = "nb"
    use_observed_lib_size: bool = False
    use_layer_norm: Literal["encoder", "none"] = "none"
    bias: bool = False


class LinearSCVIModule(SCVIModule):
    """Network of scVI with a linear decoder; parameter names are those of scvi-tools."""

    accepts_sparse = SCVIModule.accepts_sparse
    config: LinearSCVIConfig
    decoder: LinearDecoder

    def make_decoder(self, n_dense: int, n_cat_list: Sequence[int]) -> LinearDecoder:
        """Linear map from the latent and the covariates."""
        sizes, config = self.sizes, self.config
        return LinearDecoder(
            config.n_latent + n_dense,
            sizes.n_genes,
            n_cat_list,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            bias=config.bias,
            scale_activation="softplus" if sizes.size_factor else "softmax",
            dispersion_per_cell=self.has_dispersion and config.dispersion == "gene-cell",
            zero_inflation=config.gene_likelihood == "zinb",
        )

    def loadings(self) -> Float[Tensor, "genes latent"]:
        """Weight of each latent dimension for each gene, batch normalization included."""
        return self.decoder.weights(self.config.n_latent)


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

    get_loadings = get_loadings
    differential_expression = differential_expression

    @staticmethod
    def build(registration: Registration, config: LinearSCVIConfig) -> LinearSCVIModule:
        """Network for these data and options."""
        return LinearSCVIModule(sizes_of(registration, config), config)

    def check_scvi_export(self, options: Mapping[str, Any]) -> None:
        """Refuse options and covariates that the LinearSCVI of scvi-tools does not have."""
        unknown = [name for name in options if name not in SCVI_OPTIONS]
        given = self.registration.keys.to_json()
        unknown += [name for name in given if name not in ("layer", "batch_key", "labels_key")]
        if options.get("dispersion") in ("gene-label", "gene-cell"):
            unknown.append("dispersion")
        if unknown:
            raise InvalidOptionError(
                f"The LinearSCVI of scvi-tools does not take {quote_names(unknown)}. Save without "
                "format."
            )

    def scvi_placeholder_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that scvi-tools expects in a file although it computes nothing with them."""
        regressor = "factor_regressor."
        dropout = {
            name.replace(regressor, "px_dropout_decoder."): torch.zeros_like(tensor)
            for name, tensor in weights.items()
            if regressor in name
        }
        return library_encoder_placeholders(weights, self.config.n_hidden) | dropout
