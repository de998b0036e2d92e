"""Part of a network that explains the counts of proteins by background and foreground."""

from __future__ import annotations

from math import log, pi

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from cellvae.contracts import GenerativeModule
from cellvae.distributions import NegativeBinomialMixture
from cellvae.kernels import ProteinInputs, mixture_log_prob, protein_elbo, use_compiled
from cellvae.model.networks.totalvi_batch import TOTALVIBatch, TOTALVILatent, covariate_codes
from cellvae.model.networks.totalvi_config import TOTALVIConfig, TOTALVISizes
from cellvae.nn import DecoderTOTALVI
from cellvae.nn.covariates import concat_covariates, one_hot
from cellvae.nn.decoders.gene_protein_decoder import GeneProteinLogits

FOREGROUND_PENALTY = 1e-3
"""Weight of the log-probability that a protein is background, as in scvi-tools."""


class ProteinMixture(GenerativeModule[TOTALVIBatch]):
    """Likelihood of the proteins of a network: a mixture of background and foreground.

    The background of each protein is a latent variable, whose posterior is decoded and whose prior
    is that of the panel of a cell. A subclass creates the parameters and the decoder.
    """

    sizes: TOTALVISizes
    config: TOTALVIConfig
    decoder: DecoderTOTALVI
    py_r: nn.Parameter
    background_pro_alpha: nn.Parameter
    background_pro_log_beta: nn.Parameter
    log_per_batch_efficiency: nn.Parameter
    measured_by_panel: Tensor
    all_measured: bool

    def draw_noise(
        self, z: Float[Tensor, "*samples cells latent"]
    ) -> Float[Tensor, "*samples cells proteins"]:
        """Standard normal noise of the background of the proteins, for samples of the latent."""
        return torch.randn(*z.shape[:-1], self.sizes.n_proteins, dtype=z.dtype, device=z.device)

    def mixture_parameters(
        self, decoded: GeneProteinLogits, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Background mean, foreground mean, inverse dispersion and log-odds of background."""
        posterior = decoded.log_background
        log_mean = posterior.loc + posterior.scale * latent.background_noise
        background = (log_mean + self.log_efficiency(batch)).exp()
        theta = self.dispersion(batch, self.py_r, self.config.protein_dispersion)
        return background, background * decoded.foreground_ratio, theta, decoded.mixture_logits

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

    def protein_terms(
        self, decoded: GeneProteinLogits, latent: TOTALVILatent, batch: TOTALVIBatch
    ) -> tuple[Float[Tensor, " cells"], Float[Tensor, " cells"]]:
        """Log-likelihood of the measured proteins, and :meth:`kl_background`; nats.

        Both in one pass over the proteins where kernels are used.
        """
        posterior = decoded.log_background
        # Kernels are loaded for the genes: they pay for few proteins too.
        if not (use_compiled(batch.counts) and batch.proteins.dtype == torch.float32):
            of_proteins = self.protein_log_likelihood(decoded, latent, batch)
            return of_proteins, self.kl_background(decoded, batch)
        inputs = ProteinInputs(
            counts=batch.proteins,
            noise=latent.background_noise,
            batch=batch.batch,
            panel=batch.panel,
            measured=self.measured_by_panel,
            penalty=posterior.loc.new_tensor(FOREGROUND_PENALTY),
            loc=posterior.loc,
            scale=posterior.scale,
            ratio=decoded.foreground_ratio,
            logits=decoded.mixture_logits,
            theta=self.dispersion(batch, self.py_r, self.config.protein_dispersion),
            log_efficiency=self.log_per_batch_efficiency,
            prior_loc=self.background_pro_alpha,
            prior_log_scale=self.background_pro_log_beta,
        )
        return protein_elbo(inputs)

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
