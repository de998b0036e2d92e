"""Network of MultiVI: genes, chromatin and proteins of cells (Ashuach et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.nn import functional

from cellvae.contracts import Loss
from cellvae.core.csr_batch import CSRBatch
from cellvae.distributions import (
    NegativeBinomial,
    NegativeBinomialMixture,
    Poisson,
    ZeroInflatedNegativeBinomial,
    kl_to_standard_normal,
)
from cellvae.distributions.detection import Detection
from cellvae.kernels import bernoulli_log_prob, count_log_prob, has_count_kernel, use_compiled
from cellvae.model.networks.measured_cells import log_prob_of_measured
from cellvae.model.networks.modality_mixture import mix_posteriors, modality_penalty
from cellvae.model.networks.multivi_network import (
    FIELDS,
    LOSS_PARTS,
    MODALITIES,
    MultimodalNetwork,
)
from cellvae.nn.covariates import concat_covariates, one_hot

MASKS = {"rna": "has_rna", "accessibility": "has_regions", "protein": "has_proteins"}
"""Field of a batch that says in which cells an output was measured."""


class MULTIVIBatch(NamedTuple):
    """Counts of genes, regions and proteins, and covariates, of a batch of cells.

    A mask that is None is that of the cells with a count above zero. Values of a modality that was
    not measured in a cell are not read, but have to be finite.
    """

    batch: Int[Tensor, "cells 1"]
    labels: Int[Tensor, "cells 1"]
    counts: Float[Tensor, "cells genes"] | CSRBatch | None = None
    regions: Float[Tensor, "cells regions"] | CSRBatch | None = None
    proteins: Float[Tensor, "cells proteins"] | None = None
    has_rna: Bool[Tensor, "cells 1"] | None = None
    has_regions: Bool[Tensor, "cells 1"] | None = None
    has_proteins: Bool[Tensor, "cells 1"] | None = None
    size_factor: Float[Tensor, "cells 1"] | None = None
    """Library size of the genes."""
    region_size_factor: Float[Tensor, "cells 1"] | None = None
    """Probability that an accessible region of the cell is detected."""
    categorical: Int[Tensor, "cells categorical"] | None = None
    continuous: Float[Tensor, "cells continuous"] | None = None
    panel: Int[Tensor, "cells 1"] | None = None
    """Code of the protein panel."""
    latent_mean: Float[Tensor, "cells latent"] | None = None
    """Mean of the joint posterior, and so on, of minified data; None if the encoders compute it."""
    latent_variance: Float[Tensor, "cells latent"] | None = None
    log_library: Float[Tensor, "cells 1"] | None = None
    log_depth: Float[Tensor, "cells 1"] | None = None
    cell_index: Int[Tensor, "cells 1"] | None = None
    """Index of the cell in the data of the model; None for cells that the model has not seen."""


class MULTIVILatent(NamedTuple):
    """Posterior of the latent variables of a batch of cells, and samples from it."""

    posterior: Normal
    """q(z | all measured modalities), [cells, latent]."""
    sample: Float[Tensor, "*samples cells latent"]
    """Sample from the posterior, transformed to the input space of the decoders."""
    log_library: Float[Tensor, "*samples cells 1"] | None = None
    """Natural logarithm of the library size of the genes."""
    log_depth: Float[Tensor, "*samples cells 1"] | None = None
    """Log-probability that an accessible region of the cell is detected."""
    background_noise: Float[Tensor, "*samples cells proteins"] | None = None
    """Standard normal noise of the protein background, whose distribution is decoded."""
    rna: Normal | None = None
    """q(z | genes), [cells, latent]."""
    accessibility: Normal | None = None
    """q(z | regions), [cells, latent]."""
    protein: Normal | None = None
    """q(z | proteins), [cells, latent]."""


class MULTIVIModule(MultimodalNetwork[MULTIVIBatch]):
    """Network of MultiVI; parameter names are those of scvi-tools' MULTIVAE.

    Each modality has an encoder and a decoder. The posterior of a cell is a mixture of those of the
    modalities that were measured in it.
    """

    gives_probabilities: ClassVar[bool] = True

    @property
    def accepts_sparse(self) -> bool:
        """Whether genes and regions may be sparse (:class:`~cellvae.core.csr_batch.CSRBatch`)."""
        return not self.config.encode_covariates

    def adversarial_targets(self, batch: MULTIVIBatch) -> Int[Tensor, " cells"]:
        """Code of the batch of each cell."""
        return batch.batch.squeeze(-1)

    def transform(self, z: Tensor) -> Tensor:
        """Transform samples of the normal posterior to the input space of the decoders."""
        return z if self.latent_is_gaussian else functional.softmax(z, dim=-1)

    def has_modality(self, batch: MULTIVIBatch) -> dict[str, Bool[Tensor, "cells 1"]]:
        """Whether each output was measured in each cell."""
        masks = {}
        for name in self.outputs:
            mask: Tensor | None = getattr(batch, MASKS[name])
            if mask is None:
                values = getattr(batch, FIELDS[name])
                sums = values.sum_by_cell() if isinstance(values, CSRBatch) else values.sum(1, True)
                mask = sums > 0
            masks[name] = mask
        return masks

    def measurement_masks(self, batch: MULTIVIBatch) -> dict[str, Bool[Tensor, "#cells #features"]]:
        """Which values of an output were measured."""
        masks = self.has_modality(batch)
        if "protein" in masks and self.in_panel is not None and batch.panel is not None:
            masks["protein"] = masks["protein"] & self.in_panel[batch.panel.squeeze(-1)]
        return masks

    @property
    def stored_sizes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Sizes of a cell that a minified AnnData stores."""
        sizes = {"rna": "log_library", "accessibility": "log_depth"}
        return tuple(sizes[name] for name in self.outputs if name in sizes)

    def stored_latent(self, batch: MULTIVIBatch) -> MULTIVILatent | None:
        """Joint posterior and sizes of minified cells; None if they have to be encoded."""
        mean, variance = batch.latent_mean, batch.latent_variance
        if mean is None or variance is None:
            return None
        posterior = Normal(mean, variance.sqrt(), validate_args=False)
        noise = self.draw_noise(posterior)
        sample = self.transform(posterior.rsample())
        return MULTIVILatent(posterior, sample, batch.log_library, batch.log_depth, noise)

    def draw_noise(self, posterior: Normal) -> Float[Tensor, "cells proteins"] | None:
        """Standard normal noise of the background of the proteins; None without proteins."""
        if "protein" not in self.outputs:
            return None
        return torch.randn_like(posterior.loc[:, :1].expand(-1, self.sizes.n_proteins))

    def encode(self, batch: MULTIVIBatch) -> MULTIVILatent:
        """Posteriors of the latent, samples of it, and sizes of the cells."""
        stored = self.stored_latent(batch)
        if stored is not None:
            return stored
        codes = self.covariate_codes(batch) if self.config.encode_covariates else []
        features: dict[str, Any] = self.observed_values(batch)
        if self.config.encode_covariates:
            features = {
                name: concat_covariates(values, batch.continuous)
                for name, values in features.items()
            }
        encoders = {
            name: self.get_submodule(f"z_encoder_{'expression' if name == 'rna' else name}")
            for name in self.outputs
        }
        posteriors: dict[str, Normal] = {
            name: encoder(features[name], codes) for name, encoder in encoders.items()
        }
        masks = self.has_modality(batch)
        posterior = mix_posteriors(
            [*posteriors.values()], torch.cat([*masks.values()], dim=1), self.mixture_logits(batch)
        )
        noise = self.draw_noise(posterior)
        return MULTIVILatent(
            posterior,
            self.transform(posterior.rsample()),
            self.log_library(features, codes, batch) if "rna" in posteriors else None,
            self.log_depth(features, codes, batch) if "accessibility" in posteriors else None,
            noise,
            **posteriors,
        )

    def mixture_logits(self, batch: MULTIVIBatch) -> Float[Tensor, "#cells modalities"]:
        """Log-weights of the modalities; means over all cells for cells that were not seen."""
        columns = [MODALITIES.index(name) for name in self.outputs]
        weights: Tensor = self.mod_weights
        if self.config.modality_weights == "cell":
            cells = batch.cell_index
            weights = weights.mean(dim=0) if cells is None else weights[cells.squeeze(-1)]
        weights = weights.view(-1, len(MODALITIES))
        # A list as an index would be copied to the device.
        return torch.stack([weights[:, i] for i in columns], dim=1)

    def log_library(
        self, features: dict[str, Any], codes: Sequence[Tensor], batch: MULTIVIBatch
    ) -> Float[Tensor, "cells 1"]:
        """Natural logarithm of the library size of the genes."""
        if self.l_encoder_expression is None:
            assert batch.size_factor is not None
            return batch.size_factor.log()
        return functional.leaky_relu(self.l_encoder_expression(features["rna"], codes))

    def log_depth(
        self, features: dict[str, Any], codes: Sequence[Tensor], batch: MULTIVIBatch
    ) -> Float[Tensor, "cells 1"]:
        """Log-probability that an accessible region of the cell is detected."""
        if self.l_encoder_accessibility is None:
            assert batch.region_size_factor is not None
            return batch.region_size_factor.log()
        return functional.logsigmoid(self.l_encoder_accessibility(features["accessibility"], codes))

    def sample_with_log_ratio(
        self, latent: MULTIVILatent, batch: MULTIVIBatch | None, n_samples: int
    ) -> tuple[MULTIVILatent, Float[Tensor, "samples cells"]]:
        """New samples of latent and protein background, and log p(z) / q(z | x) of each; nats.

        The background adds nothing to the ratio: it is sampled from its decoded distribution.
        """
        z = latent.posterior.sample(torch.Size([n_samples]))
        logs = z.new_zeros(z.shape[:-1], dtype=torch.float64)
        if batch is not None:
            ratio = self.prior(batch).log_prob(z) - latent.posterior.log_prob(z)
            logs = ratio.double().sum(dim=-1)

        def repeat(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.expand(n_samples, *values.shape)

        noise = repeat(latent.background_noise)
        sampled = latent._replace(
            sample=self.transform(z),
            log_library=repeat(latent.log_library),
            log_depth=repeat(latent.log_depth),
            background_noise=None if noise is None else torch.randn_like(noise),
        )
        return sampled, logs

    def decode(self, latent: MULTIVILatent, batch: MULTIVIBatch) -> dict[str, Distribution]:
        """Distribution of each modality, [*samples, cells, features], by its name."""
        return {name: self.decode_output(latent, batch, name) for name in self.outputs}

    def decode_output(
        self, latent: MULTIVILatent, batch: MULTIVIBatch, output: str
    ) -> Distribution:
        """Distribution of one modality, [*samples, cells, features]; the others are not decoded."""
        decoders: dict[str, Callable[[MULTIVILatent, MULTIVIBatch], Distribution]] = {
            "rna": self.decode_counts,
            "accessibility": self.decode_detection,
            "protein": self.decode_proteins,
        }
        return decoders[output](latent, batch)

    def decode_scale(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> Float[Tensor, "*samples cells features"]:
        """Normalized values of the first modality, without the other parameters."""
        if self.outputs[0] == "rna":
            features = concat_covariates(latent.sample, batch.continuous)
            return self.z_decoder_expression.scale(features, self.covariate_codes(batch))
        if self.outputs[0] == "accessibility":
            return self.decode_accessibility(latent, batch)
        return super().decode_scale(latent, batch)

    def decode_counts(self, latent: MULTIVILatent, batch: MULTIVIBatch) -> Distribution:
        """Distribution of the counts of genes, [*samples, cells, genes]."""
        features = concat_covariates(latent.sample, batch.continuous)
        decoded = self.z_decoder_expression(
            features, latent.log_library, self.covariate_codes(batch)
        )
        if self.config.gene_likelihood == "poisson":
            return Poisson(rate=decoded.rate, scale=decoded.scale)
        theta = self.inverse_dispersion(batch, decoded.log_dispersion)
        if self.config.gene_likelihood == "nb":
            return NegativeBinomial(mu=decoded.rate, theta=theta, scale=decoded.scale)
        return ZeroInflatedNegativeBinomial(
            mu=decoded.rate, theta=theta, zi_logits=decoded.dropout, scale=decoded.scale
        )

    def decode_detection(self, latent: MULTIVILatent, batch: MULTIVIBatch) -> Detection:
        """Distribution of the detection of regions, [*samples, cells, regions]."""
        assert latent.log_depth is not None
        features = concat_covariates(latent.sample, batch.continuous)
        logits = self.z_decoder_accessibility(features, self.covariate_codes(batch))
        return Detection(logits, latent.log_depth + self.log_region_factors())

    def decode_accessibility(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> Float[Tensor, "*samples cells regions"]:
        """Probability that a region is accessible."""
        return self.decode_detection(latent, batch).logits.sigmoid()

    def log_depth_factor(self, latent: MULTIVILatent) -> Float[Tensor, "*samples cells 1"]:
        """Log-probability that an accessible region of a cell is detected, without its factor."""
        assert latent.log_depth is not None
        return latent.log_depth

    def decode_proteins(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> NegativeBinomialMixture:
        """Distribution of the counts of proteins, [*samples, cells, proteins].

        Background is the first component.
        """
        assert latent.background_noise is not None
        features = concat_covariates(latent.sample, batch.continuous)
        decoded = self.z_decoder_pro(features, self.covariate_codes(batch))
        background = decoded.log_background
        mean = (background.loc + background.scale * latent.background_noise).exp()
        by = self.config.protein_dispersion
        return NegativeBinomialMixture(
            mu1=mean,
            mu2=mean * decoded.foreground_ratio,
            theta1=self.by_category(self.py_r, by, batch).exp(),
            mixture_logits=decoded.background_logits,
        )

    def log_region_factors(self) -> Float[Tensor, " regions"]:
        """Log-probability that a region is detected where it is accessible."""
        if self.region_factors is None:
            return torch.zeros(self.sizes.n_regions, device=self.mod_weights.device)
        return functional.logsigmoid(self.region_factors)

    def inverse_dispersion(self, batch: MULTIVIBatch, decoded: Tensor | None) -> Tensor:
        """Inverse dispersion of the genes, [genes] or [*samples, cells, genes]."""
        if self.px_r is None:
            assert decoded is not None
            return decoded.exp()
        return self.by_category(self.px_r, self.config.dispersion, batch).exp()

    def by_category(self, values: Tensor, by: str, batch: MULTIVIBatch) -> Tensor:
        """Parameter of each feature for the category of each cell, if it differs by one."""
        codes = batch.batch if by.endswith("-batch") else batch.labels
        return (
            values
            if values.ndim == 1
            else functional.linear(one_hot(codes, values.shape[1]), values)
        )

    def log_likelihood(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> dict[str, Float[Tensor, " cells"]]:
        """Log-likelihood of the measured values of each modality of each cell, in nats."""
        masks, sums = self.measurement_masks(batch), {}
        if "rna" in masks:
            sums["rna"] = self.expression_log_prob(latent, batch, masks["rna"])
        if "accessibility" in masks:
            sums["accessibility"] = self.accessibility_log_prob(
                latent, batch, masks["accessibility"]
            )
        if "protein" in masks:
            assert batch.proteins is not None
            log_prob = self.decode_proteins(latent, batch).log_prob(batch.proteins)
            sums["protein"] = torch.where(masks["protein"], log_prob, 0.0).sum(dim=-1)
        return sums

    def expression_log_prob(
        self, latent: MULTIVILatent, batch: MULTIVIBatch, measured: Bool[Tensor, "cells 1"]
    ) -> Float[Tensor, "*samples cells"]:
        """Log-probability of the counts of the genes of each measured cell, else 0; in nats."""
        counts, decoder = batch.counts, self.z_decoder_expression
        assert counts is not None and latent.log_library is not None
        if latent.sample.ndim != 2 or not decoder.is_softmax or not has_count_kernel(counts):
            dense = counts.to_dense() if isinstance(counts, CSRBatch) else counts
            log_prob = self.decode_counts(latent, batch).log_prob(dense).sum(dim=-1)
            return torch.where(measured.squeeze(-1), log_prob, 0.0)
        features = concat_covariates(latent.sample, batch.continuous)
        raw = decoder.logits(features, self.covariate_codes(batch))
        theta = None
        if self.config.gene_likelihood != "poisson":
            theta = self.inverse_dispersion(batch, raw.log_dispersion)
        return log_prob_of_measured(
            count_log_prob, measured, counts, raw.logits, latent.log_library, theta, raw.dropout
        )

    def accessibility_log_prob(
        self, latent: MULTIVILatent, batch: MULTIVIBatch, measured: Bool[Tensor, "cells 1"]
    ) -> Float[Tensor, "*samples cells"]:
        """Log-probability of the detected regions of each measured cell, else 0; in nats."""
        regions = batch.regions
        assert regions is not None and latent.log_depth is not None
        if latent.sample.ndim != 2 or not use_compiled(regions, "bernoulli_log_prob"):
            dense = regions.to_dense() if isinstance(regions, CSRBatch) else regions
            log_prob = self.decode_detection(latent, batch).log_prob(dense).sum(dim=-1)
            return torch.where(measured.squeeze(-1), log_prob, 0.0)
        features = concat_covariates(latent.sample, batch.continuous)
        logits = self.z_decoder_accessibility.logits(features, self.covariate_codes(batch))
        factors = self.log_region_factors()
        return log_prob_of_measured(
            bernoulli_log_prob, measured, regions, logits, latent.log_depth, factors
        )

    def loss(self, batch: MULTIVIBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO and penalty on the distance of modalities; only the KL is weighted."""
        masks = self.has_modality(batch)
        batch = batch._replace(**{MASKS[name]: mask for name, mask in masks.items()})
        # The penalty compares the posteriors of the modalities, which are not stored.
        batch = batch._replace(latent_mean=None)
        latent = self.encode(batch)
        reconstruction = {
            LOSS_PARTS[name]: -log_likelihood
            for name, log_likelihood in self.log_likelihood(latent, batch).items()
        }
        kl = kl_to_standard_normal(latent.posterior).sum(dim=-1)
        posteriors = [getattr(latent, name) for name in self.outputs]
        paired = torch.cat([*masks.values()], dim=1)
        penalty = modality_penalty(self.config.modality_penalty, posteriors, paired)
        total = sum(reconstruction.values(), kl_weight * kl + penalty)
        return Loss(
            loss=total.mean(),
            reconstruction=reconstruction,
            kl_local={"kl_divergence_z": kl, "kl_divergence_paired": penalty},
            kl_global=kl.new_zeros(()),
            latent=latent.sample,
        )

    def covariate_codes(self, batch: MULTIVIBatch) -> list[Tensor]:
        """Codes of batch and categorical covariates, [cells, 1] each."""
        further = [] if batch.categorical is None else batch.categorical.split(1, dim=-1)
        return [batch.batch, *further]
