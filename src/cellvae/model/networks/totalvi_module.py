"""totalVI: a variational autoencoder of genes and surface proteins (Gayoso, Steier et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, pi
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence
from torch.nn import functional

from cellvae.contracts import MIN_LIBRARY_SIZE, GenerativeModule, Loss, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.options import Options, check_kwargs, check_value, option
from cellvae.distributions import (
    NegativeBinomial,
    NegativeBinomialMixture,
    ZeroInflatedNegativeBinomial,
    kl_to_standard_normal,
)
from cellvae.errors import InvalidOptionError
from cellvae.kernels import count_log_prob, materialize, mixture_log_prob, use_compiled
from cellvae.model.components.background_prior import protein_background_by_panel
from cellvae.model.components.count_features import Where, log1p, total_counts
from cellvae.model.components.library_prior import library_stats_by_batch
from cellvae.model.components.minified_posterior import stored_posterior
from cellvae.nn import DecoderTOTALVI, EncoderTOTALVI
from cellvae.nn.covariates import concat_covariates, one_hot
from cellvae.nn.decoders.gene_protein_decoder import GeneProteinLogits

MAX_LOG_LIBRARY = 15.0
"""Largest log library size where it is a latent variable, as in scvi-tools."""
FOREGROUND_PENALTY = 1e-3
"""Weight of the log-probability that a protein is background, as in scvi-tools."""
MANY_PROTEINS = 10
"""Number of proteins above which the prior of their background is estimated by default."""
PARTS = (
    "reconstruction_loss_gene",
    "reconstruction_loss_protein",
    "kl_div_z",
    "kl_div_l_gene",
    "kl_div_back_pro",
)


@dataclass(frozen=True, kw_only=True)
class TOTALVIConfig(Options):
    """Options of totalVI.

    Parameters
    ----------
    n_latent
        Dimensions of the latent space.
    gene_dispersion
        Whether the inverse dispersion of genes differs by `"gene"`, `"gene-batch"` or
        `"gene-label"`.
    protein_dispersion
        The same for proteins: `"protein"`, `"protein-batch"` or `"protein-label"`.
    gene_likelihood
        Distribution of the counts of genes.
    latent_distribution
        `"normal"`, or `"ln"` for a logistic normal latent (fractions that sum to one).
    empirical_protein_background_prior
        Whether the prior of the background of proteins starts from an estimate from the data; None:
        if there are more than ten proteins. It is learned either way.
    override_missing_proteins
        Whether a protein without counts in all cells of a panel is taken as measured there.
    missing_proteins
        Proteins that were not measured, by panel: `{"batch_2": ["CD4", "CD8"]}`. In panels that are
        not named, and without this option, those without counts in all cells.
    n_hidden
        Width of the hidden layers.
    n_layers_encoder, n_layers_decoder
        Hidden layers of encoder and decoder.
    dropout_rate_encoder, dropout_rate_decoder
        Probabilities that a feature is dropped in encoder and decoder.
    log_variational
        Whether the encoder reads log(1 + x) of the features of a cell x.
    encode_covariates
        Whether the encoder reads batch and covariates too.
    use_observed_lib_size
        Whether the library size of a cell is the sum of its gene counts; otherwise it is a latent
        variable. Size factors, if they are used, take precedence.
    use_size_factor_key
        Whether library sizes are the size factors that were set up; None: if there are any.
    use_batch_norm, use_layer_norm
        Which layers have batch and layer normalization.
    extra_encoder_kwargs
        Further options of :class:`~cellvae.nn.EncoderTOTALVI`, of which there are none.
    extra_decoder_kwargs
        `{"activation_function_bg": "exp"}`: the function that makes the standard deviation of the
        background positive, `"softplus"` by default (`"exp"` in files of scvi-tools before 1.2).
    """

    n_latent: int = option(20, at_least=1, at_most=65_536)
    gene_dispersion: Literal["gene", "gene-batch", "gene-label"] = "gene"
    protein_dispersion: Literal["protein", "protein-batch", "protein-label"] = "protein"
    gene_likelihood: Literal["zinb", "nb"] = "nb"
    latent_distribution: Literal["normal", "ln"] = "normal"
    empirical_protein_background_prior: bool | None = None
    override_missing_proteins: bool = False
    missing_proteins: Mapping[str, Any] | None = None
    n_hidden: int = option(256, at_least=1, at_most=65_536)
    n_layers_encoder: int = option(2, at_least=1, at_most=128)
    n_layers_decoder: int = option(1, at_least=1, at_most=128)
    dropout_rate_encoder: float = option(0.2, at_least=0, at_most=0.999)
    dropout_rate_decoder: float = option(0.2, at_least=0, at_most=0.999)
    log_variational: bool = True
    encode_covariates: bool = True
    use_observed_lib_size: bool = True
    use_size_factor_key: bool | None = None
    use_batch_norm: Where = "both"
    use_layer_norm: Where = "none"
    extra_encoder_kwargs: Mapping[str, Any] | None = None
    extra_decoder_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for panel, names in (self.missing_proteins or {}).items():
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise InvalidOptionError(
                    f"Expected missing_proteins to have a list of names for panel '{panel}'; got "
                    f"{names!r}."
                )
        check_kwargs(dict(self.extra_encoder_kwargs or {}), (), "extra_encoder_kwargs")
        given = dict(self.extra_decoder_kwargs or {})
        check_kwargs(given, ("activation_function_bg",), "extra_decoder_kwargs")
        for word, value in given.items():
            check_value(word, value, Literal["exp", "softplus"], {})

    @property
    def background_activation(self) -> Literal["exp", "softplus"]:
        """Function that makes the standard deviation of the background positive."""
        given = self.extra_decoder_kwargs or {}
        activation: Literal["exp", "softplus"] = given.get("activation_function_bg", "softplus")
        return activation


@dataclass(frozen=True, kw_only=True)
class TOTALVISizes:
    """Sizes of the network that follow from the data."""

    n_genes: int
    n_proteins: int
    n_batch: int = 1
    n_labels: int = 1
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    size_factor: bool = False
    n_panels: int = 1
    measured: tuple[tuple[bool, ...], ...] | None = None
    """Which proteins were measured in which panel, [panels, proteins]; None for all in all."""


class TOTALVIBatch(NamedTuple):
    """Counts of genes and proteins, and covariates, of a batch of cells."""

    counts: Float[Tensor, "cells genes"] | CSRBatch
    batch: Int[Tensor, "cells 1"]
    labels: Int[Tensor, "cells 1"]
    proteins: Float[Tensor, "cells proteins"]
    """Counts of proteins; zero where a protein was not measured."""
    panel: Int[Tensor, "cells 1"]
    """Code of the panel of antibodies; that of the batch if no panels were set up."""
    size_factor: Float[Tensor, "cells 1"] | None = None
    categorical: Int[Tensor, "cells categorical"] | None = None
    continuous: Float[Tensor, "cells continuous"] | None = None
    latent_mean: Float[Tensor, "cells latent"] | None = None
    latent_variance: Float[Tensor, "cells latent"] | None = None
    library_mean: Float[Tensor, "cells 1"] | None = None
    library_variance: Float[Tensor, "cells 1"] | None = None
    n_labelled: int = 0
    """Number of cells at the end of the batch that only a classifier is trained on."""


class TOTALVILatent(NamedTuple):
    """Posterior of the latent variables of a batch of cells, and samples from it.

    The posterior of the background of proteins is decoded from the latent, so that a sample of the
    background is kept as the standard normal noise that its decoded mean and standard deviation
    transform.
    """

    posterior: Normal
    """q(z | x, y), [cells, latent]."""
    sample: Float[Tensor, "*samples cells latent"]
    """Sample from the posterior, transformed to the input space of the decoder."""
    log_library: Float[Tensor, "*samples cells 1"]
    """Natural logarithm of the library size of the genes of each cell."""
    background_noise: Float[Tensor, "*samples cells proteins"]
    """Standard normal noise of the log mean of the background of each protein."""
    log_library_posterior: Normal | None = None
    """q(log library size | x, y), [cells, 1]; None if the library size is observed."""


class TOTALVIModule(GenerativeModule[TOTALVIBatch]):
    """Network of totalVI.

    Names of parameters are those of scvi-tools' TOTALVAE, so that weights can be exchanged.
    Sub-networks that the options do not use are not created.

    The loss is that of scvi-tools since 1.3.1. Beside the negative ELBO it has two terms of each
    protein, in `kl_div_back_pro`: the negative log-density of a standard log-normal distribution at
    the capture efficiency of the batch, and a small weight on the log-probability of background.
    Both are summed over all proteins, also over those that a panel lacks; the likelihood and the
    KL divergence of the background are not.
    """

    outputs = ("rna", "protein")
    observed_fields = ("counts", "proteins")
    loss_parts = PARTS
    loss_weights: Mapping[str, float] = MappingProxyType({"pro_recons_weight": 1.0})
    retrained_on_query = (
        "encoder.l_gene_encoder",
        "encoder.l_gene_mean_encoder",
        "encoder.l_gene_var_encoder",
    )
    library_log_means: Tensor
    library_log_vars: Tensor
    measured_by_panel: Tensor

    def __init__(self, sizes: TOTALVISizes, config: TOTALVIConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = config
        n_cat_list = (sizes.n_batch, *sizes.n_cats_per_cov)
        features = sizes.n_genes + sizes.n_proteins
        latent_library = not (config.use_observed_lib_size or sizes.size_factor)
        self.encoder = EncoderTOTALVI(
            features + (sizes.n_continuous if config.encode_covariates else 0),
            config.n_latent,
            n_cat_list if config.encode_covariates else (),
            n_layers=config.n_layers_encoder,
            n_hidden=config.n_hidden,
            dropout_rate=config.dropout_rate_encoder,
            distribution=config.latent_distribution,
            latent_library=latent_library,
            use_batch_norm=config.use_batch_norm in ("encoder", "both"),
            use_layer_norm=config.use_layer_norm in ("encoder", "both"),
        )
        self.decoder = DecoderTOTALVI(
            config.n_latent + sizes.n_continuous,
            sizes.n_genes,
            sizes.n_proteins,
            n_cat_list,
            n_layers=config.n_layers_decoder,
            n_hidden=config.n_hidden,
            dropout_rate=config.dropout_rate_decoder,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
            scale_activation="softplus" if sizes.size_factor else "softmax",
            activation_function_bg=config.background_activation,
            zero_inflation=config.gene_likelihood == "zinb",
        )
        self.init_parameters()
        self.latent_is_gaussian = config.latent_distribution == "normal"
        self.n_latent, self.n_adversarial_classes = config.n_latent, sizes.n_batch
        # Cells of panels that lack proteins mix better against a classifier of batches.
        self.adversarial = not self.all_measured
        if latent_library:
            self.register_buffer("library_log_means", torch.zeros(1, sizes.n_batch))
            self.register_buffer("library_log_vars", torch.ones(1, sizes.n_batch))

    def init_parameters(self) -> None:
        """Create dispersions, capture efficiencies, and the prior of the background."""
        sizes, config = self.sizes, self.config
        columns = {"": (), "batch": (sizes.n_batch,), "label": (sizes.n_labels,)}
        of_genes = columns[config.gene_dispersion.partition("-")[2]]
        of_proteins = columns[config.protein_dispersion.partition("-")[2]]
        self.px_r = nn.Parameter(torch.randn(sizes.n_genes, *of_genes))
        self.py_r = nn.Parameter(2 * torch.rand(sizes.n_proteins, *of_proteins))
        by_panel = (sizes.n_proteins, sizes.n_panels)
        self.background_pro_alpha = nn.Parameter(torch.full(by_panel, 3.0))
        self.background_pro_log_beta = nn.Parameter(torch.zeros(by_panel))
        self.log_per_batch_efficiency = nn.Parameter(torch.zeros(sizes.n_proteins, sizes.n_batch))
        # Not in files, so that it needs memory where a module is made on the meta device.
        measured = torch.ones(sizes.n_panels, sizes.n_proteins, dtype=torch.bool, device="cpu")
        if sizes.measured is not None:
            given = torch.tensor(sizes.measured, dtype=torch.bool, device="cpu")
            measured = given.reshape(measured.shape)
        self.all_measured = bool(measured.all())
        self.register_buffer("measured_by_panel", measured, persistent=False)

    def adversarial_targets(self, batch: TOTALVIBatch) -> Int[Tensor, " cells"]:
        """Batches of the cells, which the adversarial classifier predicts."""
        return batch.batch[: len(batch.batch) - batch.n_labelled].squeeze(-1)

    @property
    def accepts_sparse(self) -> bool:
        """Whether counts of a batch may be sparse (:class:`~cellvae.core.csr_batch.CSRBatch`).

        This is not inherited: a subclass that accepts sparse counts defines it again.
        """
        return self.decoder.is_softmax

    def transform(self, z: Tensor) -> Tensor:
        """Transform samples of the normal posterior to the input space of the decoder."""
        return self.encoder.transform(z)

    def encode(self, batch: TOTALVIBatch) -> TOTALVILatent:
        """Posterior of latent and log library size, and a sample of all latent variables."""
        stored = stored_posterior(batch, self.transform)
        if stored is not None:
            noise = self.draw_noise(stored.sample)
            return TOTALVILatent(
                stored.posterior,
                stored.sample,
                stored.log_library,
                noise,
                stored.log_library_posterior,
            )
        genes, proteins = divide_by_mean(batch.counts), divide_by_mean(batch.proteins)
        if self.config.log_variational:
            genes, proteins = log1p(genes), log1p(proteins)
        assert isinstance(proteins, Tensor)
        codes: Sequence[Tensor] = ()
        if self.config.encode_covariates:
            proteins = concat_covariates(proteins, batch.continuous)
            codes = covariate_codes(batch)
        posterior, library_posterior = self.encoder(genes, proteins, codes)
        sample = self.transform(posterior.rsample())
        if library_posterior is None:
            log_library = total_counts(batch.counts).clamp(min=MIN_LIBRARY_SIZE).log()
        else:
            log_library = library_posterior.rsample()
        noise = self.draw_noise(sample)
        return TOTALVILatent(posterior, sample, log_library, noise, library_posterior)

    def draw_noise(
        self, z: Float[Tensor, "*samples cells latent"]
    ) -> Float[Tensor, "*samples cells proteins"]:
        """Standard normal noise of the background of the proteins, for samples of the latent."""
        return torch.randn(*z.shape[:-1], self.sizes.n_proteins, dtype=z.dtype, device=z.device)

    def decode_logits(self, latent: TOTALVILatent, batch: TOTALVIBatch) -> GeneProteinLogits:
        """Parameters of genes and proteins that do not depend on library sizes."""
        features = concat_covariates(latent.sample, batch.continuous)
        decoded: GeneProteinLogits = self.decoder(features, covariate_codes(batch))
        return decoded

    def decode(self, latent: TOTALVILatent, batch: TOTALVIBatch) -> dict[str, Distribution]:
        """Distributions of the counts of genes and of proteins, [*samples, cells, features].

        The first component of the mixture of a protein is its background, the second its
        foreground; both means include the capture efficiency of the batch.
        """
        decoded = self.decode_logits(latent, batch)
        return {
            "rna": self.gene_counts(decoded, latent, batch),
            "protein": NegativeBinomialMixture(*self.mixture_parameters(decoded, latent, batch)),
        }

    def decode_output(
        self, latent: TOTALVILatent, batch: TOTALVIBatch, output: str
    ) -> Distribution:
        """Distribution of genes or of proteins; for proteins, not those of genes."""
        decoded = self.decode_logits(latent, batch)
        if output == "rna":
            return self.gene_counts(decoded, latent, batch)
        return NegativeBinomialMixture(*self.mixture_parameters(decoded, latent, batch))

    def decode_scale(
        self, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> Float[Tensor, "*samples cells genes"]:
        """Normalized expression of genes, without the other parameters of the likelihoods."""
        features = concat_covariates(latent.sample, batch.continuous)
        return self.decoder.scale(features, covariate_codes(batch))

    def gene_counts(
        self, decoded: GeneProteinLogits, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> NegativeBinomial | ZeroInflatedNegativeBinomial:
        """Distribution of the counts of genes."""
        scale = self.decoder.activate(materialize(decoded.logits))
        rate = scale * self.log_size(latent, batch).exp()
        theta = self.dispersion(batch, self.px_r, self.config.gene_dispersion)
        if decoded.dropout is None:
            return NegativeBinomial(mu=rate, theta=theta, scale=scale)
        return ZeroInflatedNegativeBinomial(
            mu=rate, theta=theta, zi_logits=materialize(decoded.dropout), scale=scale
        )

    def mixture_parameters(
        self, decoded: GeneProteinLogits, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Background mean, foreground mean, inverse dispersion and log-odds of background."""
        posterior = decoded.log_background
        log_mean = posterior.loc + posterior.scale * latent.background_noise
        background = (log_mean + self.log_efficiency(batch)).exp()
        theta = self.dispersion(batch, self.py_r, self.config.protein_dispersion)
        return background, background * decoded.foreground_ratio, theta, decoded.mixture_logits

    def log_size(
        self, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> Float[Tensor, "*samples cells 1"]:
        """Natural logarithm of the library size or size factor of each cell."""
        if self.sizes.size_factor:
            assert batch.size_factor is not None
            return batch.size_factor.log()
        if latent.log_library_posterior is None:
            return latent.log_library
        return latent.log_library.clamp(max=MAX_LOG_LIBRARY)

    def log_efficiency(self, batch: TOTALVIBatch) -> Float[Tensor, "cells proteins"]:
        """Natural logarithm of the capture efficiency of each protein in the batch of a cell."""
        codes = one_hot(batch.batch, self.sizes.n_batch)
        return functional.linear(codes, self.log_per_batch_efficiency)

    def dispersion(self, batch: TOTALVIBatch, log_theta: Tensor, kind: str) -> Tensor:
        """Inverse dispersion of these cells, [features] or [cells, features]."""
        if kind.endswith("-batch"):
            log_theta = functional.linear(one_hot(batch.batch, self.sizes.n_batch), log_theta)
        elif kind.endswith("-label"):
            log_theta = functional.linear(one_hot(batch.labels, self.sizes.n_labels), log_theta)
        return log_theta.exp()

    def background_prior(self, batch: TOTALVIBatch) -> Normal:
        """Prior of the log mean of the background by panel, [cells, proteins]."""
        codes = one_hot(batch.panel, self.sizes.n_panels)
        mean = functional.linear(codes, self.background_pro_alpha)
        scale = functional.linear(codes, self.background_pro_log_beta.exp())
        return Normal(mean, scale, validate_args=False)

    def library_prior(self, batch: TOTALVIBatch) -> Normal | None:
        """Prior of the log library size by batch, [cells, 1]; None if it is observed."""
        if self.encoder.l_gene_encoder is None:
            return None
        mean, variance = (
            functional.embedding(batch.batch.squeeze(-1), prior.T)
            for prior in (self.library_log_means, self.library_log_vars)
        )
        return Normal(mean, variance.sqrt(), validate_args=False)

    def measurement_masks(self, batch: TOTALVIBatch) -> dict[str, Bool[Tensor, "cells proteins"]]:
        """Which proteins were measured in each cell; without an entry, all of them."""
        if self.all_measured:
            return {}
        return {"protein": self.measured_by_panel[batch.panel.squeeze(-1)]}

    def sample_with_log_ratio(
        self, latent: TOTALVILatent, batch: TOTALVIBatch | None, n_samples: int
    ) -> tuple[TOTALVILatent, Float[Tensor, "samples cells"]]:
        """New samples of all latent variables, and log p / q of each; nats.

        The background of a protein that was not measured does not change the ratio.
        """
        sampled, logs = super().sample_with_log_ratio(latent, batch, n_samples)
        sampled = sampled._replace(background_noise=self.draw_noise(sampled.sample))
        if batch is not None:
            features = concat_covariates(sampled.sample, batch.continuous)
            posterior = self.decoder.log_background(features, covariate_codes(batch))
            values = posterior.loc + posterior.scale * sampled.background_noise
            ratio = self.background_prior(batch).log_prob(values) - posterior.log_prob(values)
            logs = logs + self.sum_measured(ratio.double(), batch)
        return sampled, logs

    def sum_measured(
        self, values: Float[Tensor, "*samples cells proteins"], batch: TOTALVIBatch
    ) -> Float[Tensor, "*samples cells"]:
        """Sum over the proteins that were measured in each cell."""
        measured = self.measurement_masks(batch).get("protein")
        if measured is not None:
            values = torch.where(measured, values, 0.0)
        return values.sum(dim=-1)

    def loss(self, batch: TOTALVIBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO.

        As in scvi-tools, `kl_weight` multiplies the KL divergences of latent and background and
        also the loss of the proteins; the KL divergence of the library size is not weighted.
        """
        return self.negative_elbo(self.encode(batch), batch, kl_weight)

    def negative_elbo(
        self, latent: TOTALVILatent, batch: TOTALVIBatch, kl_weight: Float[Tensor, ""]
    ) -> Loss:
        """Loss of a batch for samples of the latent variables."""
        decoded = self.decode_logits(latent, batch)
        of_genes = -self.gene_log_likelihood(decoded, latent, batch)
        of_proteins = -self.protein_log_likelihood(decoded, latent, batch)
        unweighted, kl_latent = self.latent_kl_terms(latent.posterior, latent.sample)
        kl_library, prior = torch.zeros_like(kl_latent), self.library_prior(batch)
        if latent.log_library_posterior is not None and prior is not None:
            kl_library = kl_divergence(latent.log_library_posterior, prior).sum(dim=-1)
        kl_background = self.kl_background(decoded, batch)
        protein_weight = self.loss_weights["pro_recons_weight"]
        weighted = protein_weight * of_proteins + kl_latent + kl_background
        kl = (unweighted + kl_latent, kl_library, kl_background)
        return Loss(
            loss=(of_genes + unweighted + kl_weight * weighted + kl_library).mean(),
            reconstruction=dict(zip(PARTS[:2], (of_genes, of_proteins), strict=True)),
            kl_local=dict(zip(PARTS[2:], kl, strict=True)),
            kl_global=kl_latent.new_zeros(()),
            latent=latent.sample,
        )

    def latent_kl_terms(
        self, posterior: Normal, z: Float[Tensor, "cells latent"]
    ) -> tuple[Float[Tensor, " cells"], Float[Tensor, " cells"]]:
        """KL divergence of the latent, in nats: the part that `kl_weight` leaves, and the other."""
        kl = kl_to_standard_normal(posterior).sum(dim=-1)
        return torch.zeros_like(kl), kl

    def gene_log_likelihood(
        self, decoded: GeneProteinLogits, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> Float[Tensor, " cells"]:
        """Log-likelihood of the counts of genes of each cell, in nats."""
        counts = batch.counts
        if not (self.decoder.is_softmax and use_compiled(counts)):
            dense = counts.to_dense() if isinstance(counts, CSRBatch) else counts
            return self.gene_counts(decoded, latent, batch).log_prob(dense).sum(dim=-1)
        theta = self.dispersion(batch, self.px_r, self.config.gene_dispersion)
        log_size = self.log_size(latent, batch)
        return count_log_prob(counts, decoded.logits, log_size, theta, decoded.dropout)

    def protein_log_likelihood(
        self, decoded: GeneProteinLogits, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> Float[Tensor, " cells"]:
        """Log-likelihood of the measured counts of proteins of each cell, in nats."""
        mu1, mu2, theta, logits = self.mixture_parameters(decoded, latent, batch)
        # Kernels are loaded for the genes: they pay for few proteins too.
        if use_compiled(batch.counts) and batch.proteins.dtype == torch.float32:
            log_prob = mixture_log_prob(batch.proteins, mu1, mu2, theta, theta, logits)
        else:
            log_prob = NegativeBinomialMixture(mu1, mu2, theta, logits).log_prob(batch.proteins)
        return self.sum_measured(log_prob, batch)

    def kl_background(
        self, decoded: GeneProteinLogits, batch: TOTALVIBatch
    ) -> Float[Tensor, " cells"]:
        """KL divergence of the background, and the terms of efficiency and mixing; nats."""
        kl = kl_divergence(decoded.log_background, self.background_prior(batch))
        log_efficiency = self.log_efficiency(batch)
        efficiency = log_efficiency + (log_efficiency.square() + log(2 * pi)) / 2
        mixing = FOREGROUND_PENALTY * functional.softplus(-decoded.mixture_logits)
        return self.sum_measured(kl, batch) + (efficiency + mixing).sum(dim=-1)


def covariate_codes(batch: TOTALVIBatch) -> list[Int[Tensor, "cells 1"]]:
    """Codes of batch and categorical covariates, [cells, 1] each."""
    categorical = batch.categorical
    return [batch.batch] + ([] if categorical is None else list(categorical.split(1, dim=-1)))


def divide_by_mean(counts: Tensor | CSRBatch) -> Tensor | CSRBatch:
    """Counts of each cell divided by one plus their mean."""
    if not isinstance(counts, CSRBatch):
        return counts / (1 + counts.mean(dim=-1, keepdim=True))
    factors = 1 + counts.sum_by_cell().squeeze(-1) / counts.n_genes
    by_entry = factors.repeat_interleave(counts.indptr.diff(), output_size=len(counts.values))
    return counts._replace(values=counts.values / by_entry)


@torch.no_grad()
def init_from_data(module: TOTALVIModule, rows: Rows[TOTALVIBatch]) -> None:
    """Set what starts from the data: priors of the background, and of a latent library size."""
    sizes, empirical = module.sizes, module.config.empirical_protein_background_prior
    if empirical is None:
        empirical = sizes.n_proteins > MANY_PROTEINS
    if empirical:
        measured = module.measured_by_panel.cpu().numpy()
        means, scales = protein_background_by_panel(rows, measured)
        module.background_pro_alpha.copy_(means)
        module.background_pro_log_beta.copy_(scales.log())
    if module.encoder.l_gene_encoder is not None:
        log_means, log_vars = library_stats_by_batch(rows, sizes.n_batch)
        module.library_log_means.copy_(log_means)
        module.library_log_vars.copy_(log_vars)
