"""Options and network of scVI (Lopez et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence
from torch.nn import functional

from cellvae.contracts import MIN_LIBRARY_SIZE, CountLatent, GenerativeModule, Loss
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.options import Options, check_kwargs, check_value, option
from cellvae.data import Registration
from cellvae.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from cellvae.distributions import Normal as NormalOfCounts
from cellvae.distributions.normal import kl_of_cells
from cellvae.errors import InvalidOptionError
from cellvae.kernels import count_log_prob, has_count_kernel
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.components.count_features import Where, log1p_and_totals, total_counts
from cellvae.model.components.minified_posterior import stored_posterior
from cellvae.nn import DecoderSCVI, Encoder, LinearDecoder
from cellvae.nn.covariates import concat_covariates, one_hot
from cellvae.nn.encoder import VarActivation
from cellvae.nn.fc_layers import Activation


@dataclass(frozen=True, kw_only=True)
class SCVIConfig(Options):
    """Options of :class:`~cellvae.model.SCVI`.

    Parameters
    ----------
    n_hidden
        Width of the hidden layers.
    n_latent
        Dimensions of the latent space.
    n_layers
        Hidden layers of encoder and of decoder.
    dropout_rate
        Probability that a feature is dropped in the encoder.
    dispersion
        Whether the inverse dispersion differs by `"gene"`, `"gene-batch"`, `"gene-label"` or
        `"gene-cell"` (decoded).
    gene_likelihood
        Distribution of the counts.
    latent_distribution
        `"normal"`, or `"ln"` for a logistic normal latent (fractions that sum to one).
    use_observed_lib_size
        Whether the library size of a cell is the sum of its counts; otherwise it is a latent
        variable. Size factors, if they are used, take precedence.
    log_variational
        Whether the encoder reads log(1 + counts).
    encode_covariates
        Whether the encoder reads batch and covariates too.
    deeply_inject_covariates
        Whether every layer reads the covariates; otherwise only the first does.
    batch_representation
        Batches as indicator columns (`"one-hot"`), or as learned vectors (`"embedding"`).
    batch_embedding_kwargs
        `{"embedding_dim": 5}`: dimension of the learned vectors.
    use_batch_norm, use_layer_norm
        Which layers have batch and layer normalization.
    use_size_factor_key
        Whether library sizes are the size factors that were set up; None: if there are any.
    var_activation
        Function that makes the variance of the posterior positive.
    """

    n_hidden: int = option(128, at_least=1, at_most=65_536)
    n_latent: int = option(10, at_least=1, at_most=65_536)
    n_layers: int = option(1, at_least=1, at_most=128)
    dropout_rate: float = option(0.1, at_least=0, at_most=0.999)
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene"
    gene_likelihood: Literal["zinb", "nb", "poisson", "normal"] = "zinb"
    latent_distribution: Literal["normal", "ln"] = "normal"
    use_observed_lib_size: bool = True
    log_variational: bool = True
    encode_covariates: bool = False
    deeply_inject_covariates: bool = True
    batch_representation: Literal["one-hot", "embedding"] = "one-hot"
    batch_embedding_kwargs: Mapping[str, Any] | None = None
    use_batch_norm: Where = "both"
    use_layer_norm: Where = "none"
    use_size_factor_key: bool | None = None
    var_activation: VarActivation = "exp"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = dict(self.batch_embedding_kwargs or {})
        check_kwargs(given, ("embedding_dim",), "batch_embedding_kwargs")
        for word, value in given.items():
            given[word] = check_value(word, value, int, {"at_least": 1, "at_most": 65_536})
        if self.batch_embedding_kwargs is not None:
            object.__setattr__(self, "batch_embedding_kwargs", given)

    @property
    def embedding_dim(self) -> int:
        """Dimension of the learned vector of a batch."""
        return (self.batch_embedding_kwargs or {}).get("embedding_dim", 5)


@dataclass(frozen=True, kw_only=True)
class SCVISizes:
    """Sizes of the network that follow from the data."""

    n_genes: int
    n_batch: int = 1
    n_labels: int = 1
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    size_factor: bool = False


def sizes_of(registration: Registration, config: SCVIConfig) -> SCVISizes:
    """Sizes of the network for these data.

    Raises
    ------
    InvalidOptionError
        If size factors are requested and none were set up.
    """
    keys = registration.keys
    if config.use_size_factor_key and keys.size_factor_key is None:
        raise InvalidOptionError(
            "use_size_factor_key=True needs size factors: call "
            "setup_anndata(adata, size_factor_key=...) first."
        )
    given = keys.size_factor_key is not None
    return SCVISizes(
        n_genes=registration.n_genes,
        n_batch=registration.n_categories("batch"),
        n_labels=registration.n_categories("labels"),
        n_cats_per_cov=registration.n_categories_by_key("categorical"),
        n_continuous=len(keys.continuous_covariate_keys),
        size_factor=given if config.use_size_factor_key is None else config.use_size_factor_key,
    )


class SCVIModule(GenerativeModule[CountBatch]):
    """Network of scVI.

    Names of parameters are those of scvi-tools' VAE, so that weights can be exchanged. Sub-networks
    that the options do not use are not created.
    """

    activation: ClassVar[Activation] = "relu"
    """Activation function of the hidden layers."""
    retrained_on_query = ("l_encoder",)
    library_log_means: Tensor
    library_log_vars: Tensor

    def __init__(self, sizes: SCVISizes, config: SCVIConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = config
        self.n_latent, self.n_adversarial_classes = config.n_latent, sizes.n_batch
        embedded = config.batch_representation == "embedding"
        self.batch_embedding = (
            nn.Embedding(sizes.n_batch, config.embedding_dim) if embedded else None
        )
        n_dense = sizes.n_continuous + (config.embedding_dim if embedded else 0)
        n_cat_list = sizes.n_cats_per_cov if embedded else (sizes.n_batch, *sizes.n_cats_per_cov)

        def encoder(n_output: int, n_layers: int, distribution: Literal["normal", "ln"]) -> Encoder:
            return Encoder(
                sizes.n_genes + (n_dense if config.encode_covariates else 0),
                n_output,
                n_cat_list if config.encode_covariates else (),
                n_layers=n_layers,
                n_hidden=config.n_hidden,
                dropout_rate=config.dropout_rate,
                distribution=distribution,
                var_activation=config.var_activation,
                use_batch_norm=config.use_batch_norm in ("encoder", "both"),
                use_layer_norm=config.use_layer_norm in ("encoder", "both"),
                inject_covariates=config.deeply_inject_covariates,
                activation=self.activation,
            )

        self.z_encoder = encoder(config.n_latent, config.n_layers, config.latent_distribution)
        latent_library = not (config.use_observed_lib_size or sizes.size_factor)
        self.l_encoder = encoder(1, 1, "normal") if latent_library else None
        self.decoder = self.make_decoder(n_dense, n_cat_list)
        self.px_r = self.init_dispersion()
        self.latent_is_gaussian = config.latent_distribution == "normal"
        if latent_library:
            self.register_buffer("library_log_means", torch.zeros(1, sizes.n_batch))
            self.register_buffer("library_log_vars", torch.ones(1, sizes.n_batch))

    def make_decoder(self, n_dense: int, n_cat_list: Sequence[int]) -> DecoderSCVI | LinearDecoder:
        """Network from the latent to :class:`~cellvae.nn.CountParameters`.

        Parameters
        ----------
        n_dense
            Number of continuous inputs beside the latent.
        n_cat_list
            Number of categories of each categorical input.
        """
        sizes, config = self.sizes, self.config
        return DecoderSCVI(
            config.n_latent + n_dense,
            sizes.n_genes,
            n_cat_list,
            n_layers=config.n_layers,
            n_hidden=config.n_hidden,
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
            inject_covariates=config.deeply_inject_covariates,
            activation=self.activation,
            **self.decoder_options,
        )

    @property
    def decoder_options(self) -> dict[str, Any]:
        """Options that all decoders of counts have."""
        config = self.config
        return {
            "use_batch_norm": config.use_batch_norm in ("decoder", "both"),
            "scale_activation": "softplus" if self.sizes.size_factor else "softmax",
            "dispersion_per_cell": self.has_dispersion and config.dispersion == "gene-cell",
            "zero_inflation": config.gene_likelihood == "zinb",
        }

    @property
    def accepts_sparse(self) -> bool:
        """Whether counts of a batch may be sparse (:class:`~cellvae.core.csr_batch.CSRBatch`).

        This is not inherited: a subclass that accepts sparse counts defines it again.
        """
        fused = self.decoder.is_softmax and self.config.gene_likelihood != "normal"
        return fused and not self.config.encode_covariates

    @property
    def has_dispersion(self) -> bool:
        """Whether the likelihood has an inverse dispersion (or a standard deviation)."""
        return self.config.gene_likelihood != "poisson"

    def init_dispersion(self) -> nn.Parameter | None:
        """Initial log inverse dispersion, [genes] or [genes, categories]; None if it is decoded."""
        categories = {
            "gene": (),
            "gene-batch": (self.sizes.n_batch,),
            "gene-label": (self.sizes.n_labels,),
        }
        if not self.has_dispersion or self.config.dispersion == "gene-cell":
            return None
        return nn.Parameter(torch.randn(self.sizes.n_genes, *categories[self.config.dispersion]))

    def transform(self, z: Tensor) -> Tensor:
        """Transform samples of the normal posterior to the input space of the decoder."""
        return self.z_encoder.transform(z)

    def encode(self, batch: CountBatch) -> CountLatent:
        """Posterior of latent and log library size, and a sample from each."""
        stored = stored_posterior(batch, self.transform)
        if stored is not None:
            return stored
        features, totals = batch.counts, None
        if self.config.log_variational:
            features, totals = log1p_and_totals(batch.counts)
        codes: Sequence[Tensor] = ()
        if self.config.encode_covariates:
            assert isinstance(features, Tensor)
            features = concat_covariates(features, self.dense_covariates(batch))
            codes = self.covariate_codes(batch)
        posterior, sample = self.z_encoder.sample(features, codes)
        sample = self.transform(sample)
        if self.l_encoder is None:
            library_size = total_counts(batch.counts) if totals is None else totals
            return CountLatent(posterior, sample, library_size.clamp(min=MIN_LIBRARY_SIZE).log())
        library_posterior = self.l_encoder(features, codes)
        return CountLatent(posterior, sample, library_posterior.rsample(), library_posterior)

    def decode(self, latent: CountLatent, batch: CountBatch) -> dict[str, Distribution]:
        """Distribution of the counts, [*samples, cells, genes], by the name of the output."""
        return {self.outputs[0]: self.decode_counts(latent, batch)}

    def decode_counts(self, latent: CountLatent, batch: CountBatch) -> Distribution:
        """Distribution of the counts, [*samples, cells, genes]."""
        features = concat_covariates(latent.sample, self.dense_covariates(batch))
        log_library = latent.log_library
        if self.sizes.size_factor:
            assert batch.size_factor is not None
            log_library = batch.size_factor.log()
        decoded = self.decoder(features, log_library, self.covariate_codes(batch))
        if self.config.gene_likelihood == "poisson":
            return Poisson(rate=decoded.rate, scale=decoded.scale)
        theta = self.log_dispersion(batch, decoded.log_dispersion).exp()
        if self.config.gene_likelihood == "zinb":
            return ZeroInflatedNegativeBinomial(
                mu=decoded.rate, theta=theta, zi_logits=decoded.dropout, scale=decoded.scale
            )
        if self.config.gene_likelihood == "nb":
            return NegativeBinomial(mu=decoded.rate, theta=theta, scale=decoded.scale)
        return NormalOfCounts(decoded.rate, theta, normal_mu=decoded.scale)

    def decode_scale(
        self, latent: CountLatent, batch: CountBatch
    ) -> Float[Tensor, "*samples cells genes"]:
        """Normalized expression, without the other parameters of the likelihood."""
        features = concat_covariates(latent.sample, self.dense_covariates(batch))
        return self.decoder.scale(features, self.covariate_codes(batch))

    def log_likelihood(
        self, latent: CountLatent, batch: CountBatch
    ) -> Float[Tensor, "*samples cells"]:
        """Log-likelihood of the counts of each cell, in nats."""
        counts, decoder = batch.counts, self.decoder
        fused = latent.sample.ndim == 2 and self.config.gene_likelihood != "normal"
        if not (fused and decoder.is_softmax and has_count_kernel(counts)):
            dense = counts.to_dense() if isinstance(counts, CSRBatch) else counts
            return self.decode_counts(latent, batch).log_prob(dense).sum(dim=-1)
        features = concat_covariates(latent.sample, self.dense_covariates(batch))
        raw = decoder.logits(features, self.covariate_codes(batch))
        theta = None
        if self.has_dispersion:
            theta = self.log_dispersion(batch, raw.log_dispersion).exp()
        return count_log_prob(counts, raw.logits, latent.log_library, theta, raw.dropout)

    def loss(self, batch: CountBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO; the KL of the latent is weighted, that of the library size is not."""
        latent = self.encode(batch)
        reconstruction = -self.log_likelihood(latent, batch)
        kl_latent = kl_of_cells(latent.posterior)
        loss, kl_local = reconstruction + kl_weight * kl_latent, kl_latent
        if latent.log_library_posterior is not None:
            kl_library = self.kl_library(latent, batch)
            loss, kl_local = loss + kl_library, kl_latent + kl_library
        return Loss(
            loss=loss.mean(),
            reconstruction={"reconstruction_loss": reconstruction},
            kl_local={"kl_local": kl_local},
            kl_global=reconstruction.new_zeros(()),
            latent=latent.sample,
        )

    def adversarial_targets(self, batch: CountBatch) -> Int[Tensor, " cells"]:
        """Batch of each cell, without the labelled cells at the end."""
        return batch.batch[: len(batch.batch) - batch.n_labelled].squeeze(-1)

    def kl_library(self, latent: CountLatent, batch: CountBatch) -> Float[Tensor, " cells"]:
        """KL divergence of the log library size from its prior; zero if it is observed; nats."""
        prior = self.library_prior(batch)
        if latent.log_library_posterior is None or prior is None:
            return latent.log_library.new_zeros(latent.log_library.shape[-2])
        return kl_divergence(latent.log_library_posterior, prior).sum(dim=-1)

    def library_prior(self, batch: CountBatch) -> Normal | None:
        """Prior of the log library size by batch, [cells, 1]; None if it is observed."""
        if self.l_encoder is None:
            return None
        mean, variance = (
            functional.embedding(batch.batch.squeeze(-1), prior.T)
            for prior in (self.library_log_means, self.library_log_vars)
        )
        return Normal(mean, variance.sqrt(), validate_args=False)

    def log_dispersion(self, batch: CountBatch, decoded: Tensor | None) -> Tensor:
        """Log inverse dispersion of these cells, [genes] or [cells, genes]."""
        if self.px_r is None:
            assert decoded is not None
            return decoded
        if self.config.dispersion == "gene":
            return self.px_r
        codes, n = (
            (batch.batch, self.sizes.n_batch)
            if self.config.dispersion == "gene-batch"
            else (batch.labels, self.sizes.n_labels)
        )
        return functional.linear(one_hot(codes, n), self.px_r)

    def dense_covariates(self, batch: CountBatch) -> Tensor | None:
        """Continuous covariates and learned batch vectors, concatenated, [cells, columns]."""
        parts = [] if batch.continuous is None else [batch.continuous]
        if self.batch_embedding is not None:
            parts.append(self.batch_embedding(batch.batch.squeeze(-1)))
        return torch.cat(parts, dim=-1) if parts else None

    def covariate_codes(self, batch: CountBatch) -> list[Tensor]:
        """Codes of batch and categorical covariates, [cells, 1] each."""
        codes = [] if self.batch_embedding is not None else [batch.batch]
        return codes + (
            [] if batch.categorical is None else list(batch.categorical.split(1, dim=-1))
        )
