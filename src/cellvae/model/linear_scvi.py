"""LDVAE: scVI with a decoder whose weights can be read (Svensson et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor

from cellvae.data import CountKeys, Registration
from cellvae.data.setup.fields import Field
from cellvae.data.setup.keys import keys_from_kwargs
from cellvae.data.storage.memory import ColumnRows
from cellvae.estimator.model import Model
from cellvae.inference import (
    differential_abundance,
    differential_expression,
    get_aggregated_posterior,
    get_batch_representation,
    get_elbo,
    get_feature_correlation_matrix,
    get_importance_weights,
    get_latent_library_size,
    get_latent_representation,
    get_likelihood_parameters,
    get_loadings,
    get_marginal_ll,
    get_normalized_expression,
    get_reconstruction_error,
    posterior_predictive_sample,
)
from cellvae.model.scvi import SCVI, CountBatch, SCVIConfig, SCVIModule, sizes_of
from cellvae.nn import LinearDecoder

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, kw_only=True)
class LinearSCVIConfig(SCVIConfig):
    """What the user chose when the model was made: the options of scVI, and those of the decoder.

    Parameters
    ----------
    n_layers
        Hidden layers of the encoder; the decoder has none.
    gene_likelihood
        Distribution of the counts.
    use_observed_lib_size
        Whether the size of a cell is the sum of its counts; otherwise it is a latent variable.
    use_layer_norm
        Whether the encoder is normalised over features; the decoder is linear and never is.
    bias
        Whether the decoder has a constant term for each gene.
    """

    gene_likelihood: Literal["zinb", "nb", "poisson"] = "nb"
    use_observed_lib_size: bool = False
    use_layer_norm: Literal["encoder", "none"] = "none"
    bias: bool = False


class LinearSCVIModule(SCVIModule):
    """The mathematics of scVI with a linear decoder; parameter names are those of scvi-tools."""

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
        """Effect of each latent dimension on each gene, batch normalisation included."""
        return self.decoder.weights(self.config.n_latent)


@final
class LinearSCVI(Model):
    """Variational autoencoder of counts with a linear decoder, whose loadings tell genes apart.

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata` has seen.
    **config
        Options of the network: see :class:`LinearSCVIConfig`.

    Raises
    ------
    NotSetUpError
        If `adata` has not been set up.
    UnknownOptionError, InvalidOptionError
        If an option is misspelt or has a value that it cannot take.

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
    Keys: ClassVar[type[CountKeys]] = CountKeys
    Batch: ClassVar[type[CountBatch]] = CountBatch
    config: LinearSCVIConfig
    module: LinearSCVIModule

    get_loadings = get_loadings
    get_latent_representation = get_latent_representation
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_marginal_ll = get_marginal_ll
    get_aggregated_posterior = get_aggregated_posterior
    differential_abundance = differential_abundance
    differential_expression = differential_expression
    get_importance_weights = get_importance_weights
    get_batch_representation = get_batch_representation
    get_normalized_expression = get_normalized_expression
    posterior_predictive_sample = posterior_predictive_sample
    get_likelihood_parameters = get_likelihood_parameters
    get_latent_library_size = get_latent_library_size
    get_feature_correlation_matrix = get_feature_correlation_matrix

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        layer: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
    ) -> None:
        """Check the counts and note where batch, labels and covariates are.

        Only the words given here are kept, in `adata.uns["cellvae"]`; nothing else is changed.

        Parameters
        ----------
        adata
            Cells, with raw counts in `X` or in a layer.
        batch_key
            Column of `adata.obs` with the batch of each cell.
        labels_key
            Column of `adata.obs` with the label of each cell.
        layer
            Layer that holds the raw counts; None for `X`.
        size_factor_key
            Column of `adata.obs` with the size of each cell, in place of the sum of its counts.
        categorical_covariate_keys
            Columns of `adata.obs` with further categories to correct for.
        continuous_covariate_keys
            Columns of `adata.obs` with numbers to correct for.

        Raises
        ------
        UnknownKeyError
            If a column or layer does not exist.
        InvalidDataError
            If counts are missing, infinite or negative, a key column has missing values, or gene
            names repeat.
        """
        words = {
            "layer": layer,
            "batch_key": batch_key,
            "labels_key": labels_key,
            "size_factor_key": size_factor_key,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
        }
        cls.register(adata, keys_from_kwargs(words, CountKeys))

    @staticmethod
    def fields(keys: CountKeys) -> tuple[Field, ...]:
        """Columns that the model reads."""
        return SCVI.fields(keys)

    @staticmethod
    def build(registration: Registration, config: LinearSCVIConfig) -> LinearSCVIModule:
        """Network for these data and options."""
        return LinearSCVIModule(sizes_of(registration, config), config)

    @staticmethod
    def init_from_data(module: SCVIModule, rows: ColumnRows[CountBatch]) -> None:
        """Take the mean and variance of log sizes in each batch from the data."""
        SCVI.init_from_data(module, rows)
