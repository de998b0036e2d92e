"""Network of totalVI: genes and surface proteins (Gayoso, Steier et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence
from torch.nn import functional

from cellvae.contracts import MIN_LIBRARY_SIZE, Loss, Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.distributions import (
    NegativeBinomial,
    NegativeBinomialMixture,
    ZeroInflatedNegativeBinomial,
    kl_to_standard_normal,
)
from cellvae.kernels import count_log_prob, has_count_kernel, materialize
from cellvae.model.components.background_prior import protein_background_by_panel
from cellvae.model.components.count_features import log1p, total_counts
from cellvae.model.components.library_prior import library_stats_by_batch
from cellvae.model.components.minified_posterior import stored_posterior
from cellvae.model.networks.protein_mixture import ProteinMixture
from cellvae.model.networks.totalvi_batch import (
    TOTALVIBatch,
    TOTALVILatent,
    covariate_codes,
    divide_by_mean,
)
from cellvae.model.networks.totalvi_config import TOTALVIConfig, TOTALVISizes
from cellvae.nn import DecoderTOTALVI, EncoderTOTALVI
from cellvae.nn.covariates import concat_covariates
from cellvae.nn.decoders.gene_protein_decoder import GeneProteinLogits

MAX_LOG_LIBRARY = 15.0
"""Largest log library size where it is a latent variable, as in scvi-tools."""
MANY_PROTEINS = 10
"""Number of proteins above which the prior of their background is estimated by default."""
PARTS = (
    "reconstruction_loss_gene",
    "reconstruction_loss_protein",
    "kl_div_z",
    "kl_div_l_gene",
    "kl_div_back_pro",
)


class TOTALVIModule(ProteinMixture):
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

    def library_prior(self, batch: TOTALVIBatch) -> Normal | None:
        """Prior of the log library size by batch, [cells, 1]; None if it is observed."""
        if self.encoder.l_gene_encoder is None:
            return None
        mean, variance = (
            functional.embedding(batch.batch.squeeze(-1), prior.T)
            for prior in (self.library_log_means, self.library_log_vars)
        )
        return Normal(mean, variance.sqrt(), validate_args=False)

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
        log_prob_proteins, kl_background = self.protein_terms(decoded, latent, batch)
        unweighted, kl_latent = self.latent_kl_terms(latent.posterior, latent.sample)
        kl_library, prior = torch.zeros_like(kl_latent), self.library_prior(batch)
        if latent.log_library_posterior is not None and prior is not None:
            kl_library = kl_divergence(latent.log_library_posterior, prior).sum(dim=-1)
        of_proteins = -log_prob_proteins
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
        if not (self.decoder.is_softmax and has_count_kernel(counts)):
            dense = counts.to_dense() if isinstance(counts, CSRBatch) else counts
            return self.gene_counts(decoded, latent, batch).log_prob(dense).sum(dim=-1)
        theta = self.dispersion(batch, self.px_r, self.config.gene_dispersion)
        log_size = self.log_size(latent, batch)
        return count_log_prob(counts, decoded.logits, log_size, theta, decoded.dropout)


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
