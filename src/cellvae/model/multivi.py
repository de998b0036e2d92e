"""MultiVI: a variational autoencoder of genes, chromatin and proteins (Ashuach et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn import functional

from cellvae.contracts import GenerativeModule, Loss
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.options import Options, option
from cellvae.distributions import (
    NegativeBinomial,
    NegativeBinomialMixture,
    Poisson,
    ZeroInflatedNegativeBinomial,
    kl_to_standard_normal,
)
from cellvae.distributions.detection import Detection
from cellvae.errors import InvalidOptionError
from cellvae.kernels import bernoulli_log_prob, count_log_prob, use_compiled
from cellvae.model.components.modality_mixture import (
    ModalityPenalty,
    ModalityWeights,
    mix_posteriors,
    modality_penalty,
)
from cellvae.model.scvi import Where
from cellvae.nn import DecoderSCVI, Encoder
from cellvae.nn.covariates import concat_covariates, one_hot
from cellvae.nn.decoders.accessibility_decoder import AccessibilityDecoder
from cellvae.nn.decoders.protein_decoder import ProteinDecoder

MAX_DEFAULT_HIDDEN = 128
"""Largest width of the hidden layers where the user does not give one."""
MODALITIES = ("rna", "accessibility", "protein")
"""Outputs of a network with all modalities, in the order of the columns of its weights."""
FIELDS = {"rna": "counts", "accessibility": "regions", "protein": "proteins"}
"""Field of a batch with the measured values of each output."""
MASKS = {"rna": "has_rna", "accessibility": "has_regions", "protein": "has_proteins"}
"""Field of a batch that says in which cells an output was measured."""
LOSS_PARTS = {
    "rna": "reconstruction_loss_expression",
    "accessibility": "reconstruction_loss_accessibility",
    "protein": "reconstruction_loss_protein",
}
"""Metric of each output."""


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


@dataclass(frozen=True, kw_only=True)
class MULTIVIConfig(Options):
    """Options of :class:`MULTIVIModule`.

    Parameters
    ----------
    modality_weights
        Weights of the modalities in the joint latent: `"equal"`, learned for each modality
        (`"universal"`), or learned for each cell (`"cell"`).
    modality_penalty
        Penalty on the distance of the posteriors of two modalities of a cell: their Jeffreys
        divergence, the distance of their means (`"MMD"`), or `"None"`.
    n_hidden
        Width of the hidden layers; None for the square root of the number of regions (of genes if
        there are no regions), at most 128.
    n_latent
        Dimensions of the latent space; None for the square root of `n_hidden`.
    n_layers_encoder, n_layers_decoder
        Hidden layers.
    dropout_rate
        Probability that a feature is dropped in the encoders and in the decoder of proteins.
    region_factors
        Whether each region has a detection factor.
    gene_likelihood
        Distribution of the counts of genes.
    dispersion
        Whether the inverse dispersion of a gene differs by `"gene"`, `"gene-batch"`,
        `"gene-label"` or `"gene-cell"` (decoded).
    use_batch_norm, use_layer_norm
        Which layers have batch and layer normalization.
    latent_distribution
        `"normal"`, or `"ln"` for a logistic normal latent (fractions that sum to one).
    deeply_inject_covariates
        Whether every layer reads the covariates; otherwise only the first does. All layers of the
        decoder of proteins read them.
    encode_covariates
        Whether the encoders read batch and covariates too.
    fully_paired
        Whether all modalities were measured in every cell, so that no classifier of the batches is
        trained along unless it is asked for.
    protein_dispersion
        Whether the inverse dispersion of a protein differs by `"protein"`, `"protein-batch"` or
        `"protein-label"`.
    """

    modality_weights: ModalityWeights = "equal"
    modality_penalty: ModalityPenalty = "Jeffreys"
    n_hidden: int | None = option(None, at_least=1, at_most=65_536)
    n_latent: int | None = option(None, at_least=1, at_most=65_536)
    n_layers_encoder: int = option(2, at_least=1, at_most=128)
    n_layers_decoder: int = option(2, at_least=1, at_most=128)
    dropout_rate: float = option(0.1, at_least=0, at_most=0.999)
    region_factors: bool = True
    gene_likelihood: Literal["zinb", "nb", "poisson"] = "zinb"
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene"
    use_batch_norm: Where = "none"
    use_layer_norm: Where = "both"
    latent_distribution: Literal["normal", "ln"] = "normal"
    deeply_inject_covariates: bool = False
    encode_covariates: bool = False
    fully_paired: bool = False
    protein_dispersion: Literal["protein", "protein-batch", "protein-label"] = "protein"


@dataclass(frozen=True, kw_only=True)
class MULTIVISizes:
    """Sizes of the network that follow from the data; a modality without features is left out.

    Raises
    ------
    InvalidOptionError
        If there is no modality.
    """

    n_genes: int = 0
    n_regions: int = 0
    n_proteins: int = 0
    n_cells: int = 0
    """Number of cells, which have weights of their own with `modality_weights="cell"`."""
    n_batch: int = 1
    n_labels: int = 1
    n_cats_per_cov: tuple[int, ...] = ()
    n_continuous: int = 0
    size_factor: bool = False
    """Whether batches have the library size of the genes."""
    region_size_factor: bool = False
    """Whether batches have the probability that a region is detected."""
    panels: tuple[tuple[bool, ...], ...] = ()
    """Whether each protein is in each panel, [panels, proteins]; empty if all are in all."""

    def __post_init__(self) -> None:
        if not self.outputs:
            raise InvalidOptionError("Expected genes, regions or proteins; got no features at all.")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Modalities that have features."""
        sizes = (self.n_genes, self.n_regions, self.n_proteins)
        return tuple(name for name, n in zip(MODALITIES, sizes, strict=True) if n > 0)


class MULTIVIModule(GenerativeModule[MULTIVIBatch]):
    """Network of MultiVI; parameter names are those of scvi-tools' MULTIVAE.

    Each modality has an encoder and a decoder. The posterior of a cell is a mixture of those of the
    modalities that were measured in it. Sub-networks of modalities without features, and those that
    the options do not use, are not created.
    """

    sparse_fields = ("counts", "regions")

    def __init__(self, sizes: MULTIVISizes, config: MULTIVIConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = config
        self.outputs = sizes.outputs
        self.observed_fields = tuple(FIELDS[name] for name in self.outputs)
        parts = [LOSS_PARTS[name] for name in self.outputs] if len(self.outputs) > 1 else []
        self.loss_parts = (*parts, "kl_divergence_z", "kl_divergence_paired")
        n_features = sizes.n_regions or sizes.n_genes or sizes.n_proteins
        width = max(1, min(MAX_DEFAULT_HIDDEN, math.isqrt(n_features)))
        self.n_hidden = config.n_hidden or width
        self.n_latent = config.n_latent or max(1, math.isqrt(self.n_hidden))
        self.latent_is_gaussian = config.latent_distribution == "normal"
        self.n_adversarial_classes = sizes.n_batch
        self.adversarial = sizes.n_batch > 1 and not config.fully_paired
        if sizes.n_genes > 0:
            self.init_expression()
        if sizes.n_regions > 0:
            self.init_accessibility()
        if sizes.n_proteins > 0:
            self.init_proteins()
        weights = torch.ones(len(MODALITIES))
        if config.modality_weights == "equal":
            self.register_buffer("mod_weights", weights)
        else:
            per_cell = config.modality_weights == "cell"
            self.mod_weights = nn.Parameter(
                weights.repeat(sizes.n_cells, 1) if per_cell else weights
            )

    def init_expression(self) -> None:
        """Create encoder, library size encoder and decoder of the genes."""
        sizes, config = self.sizes, self.config
        self.z_encoder_expression = self.make_encoder(
            sizes.n_genes, inject_covariates=config.deeply_inject_covariates
        )
        self.l_encoder_expression = (
            None if sizes.size_factor else self.make_size_encoder(sizes.n_genes)
        )
        per_cell = config.gene_likelihood != "poisson" and config.dispersion == "gene-cell"
        self.z_decoder_expression = DecoderSCVI(
            self.n_latent + sizes.n_continuous,
            sizes.n_genes,
            self.n_cat_list,
            n_layers=config.n_layers_decoder,
            n_hidden=self.n_hidden,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
            inject_covariates=config.deeply_inject_covariates,
            scale_activation="softplus" if sizes.size_factor else "softmax",
            dispersion_per_cell=per_cell,
            zero_inflation=config.gene_likelihood == "zinb",
        )
        self.px_r = None
        if config.gene_likelihood != "poisson" and not per_cell:
            by = self.n_dispersions(config.dispersion)
            self.px_r = nn.Parameter(torch.randn(sizes.n_genes, *by))

    def init_accessibility(self) -> None:
        """Create encoder, depth encoder, decoder and detection factors of the regions."""
        sizes, config = self.sizes, self.config
        self.z_encoder_accessibility = self.make_encoder(sizes.n_regions)
        self.l_encoder_accessibility = (
            None if sizes.region_size_factor else self.make_size_encoder(sizes.n_regions)
        )
        self.z_decoder_accessibility = AccessibilityDecoder(
            self.n_latent + sizes.n_continuous,
            sizes.n_regions,
            self.n_cat_list,
            n_layers=config.n_layers_decoder,
            n_hidden=self.n_hidden,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
            inject_covariates=config.deeply_inject_covariates,
        )
        self.region_factors = (
            nn.Parameter(torch.zeros(sizes.n_regions)) if config.region_factors else None
        )

    def init_proteins(self) -> None:
        """Create encoder, decoder and inverse dispersion of the proteins."""
        sizes, config = self.sizes, self.config
        self.z_encoder_protein = self.make_encoder(sizes.n_proteins)
        self.z_decoder_pro = ProteinDecoder(
            self.n_latent + sizes.n_continuous,
            sizes.n_proteins,
            self.n_cat_list,
            n_layers=config.n_layers_decoder,
            n_hidden=self.n_hidden,
            dropout_rate=config.dropout_rate,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
        )
        by = self.n_dispersions(config.protein_dispersion)
        self.py_r = nn.Parameter(2 * torch.rand(sizes.n_proteins, *by))
        in_panel = torch.tensor(sizes.panels, dtype=torch.bool) if sizes.panels else None
        self.register_buffer("in_panel", in_panel, persistent=False)

    def make_encoder(self, n_features: int, *, inject_covariates: bool = True) -> Encoder:
        """Network from the values of a modality to its posterior.

        Parameters
        ----------
        n_features
            Number of features of the modality.
        inject_covariates
            Whether every layer reads the covariates, where the encoder reads them; as in
            scvi-tools, this is an option for the genes only.
        """
        config = self.config
        return Encoder(
            n_features + (self.sizes.n_continuous if config.encode_covariates else 0),
            self.n_latent,
            self.n_cat_list if config.encode_covariates else (),
            n_layers=config.n_layers_encoder,
            n_hidden=self.n_hidden,
            dropout_rate=config.dropout_rate,
            distribution=config.latent_distribution,
            var_eps=0.0,
            use_batch_norm=config.use_batch_norm in ("encoder", "both"),
            use_layer_norm=config.use_layer_norm in ("encoder", "both"),
            inject_covariates=inject_covariates,
            activation="leaky_relu",
        )

    def make_size_encoder(self, n_features: int) -> AccessibilityDecoder:
        """Network from the values of a modality to a number that its size derives from."""
        config = self.config
        return AccessibilityDecoder(
            n_features + (self.sizes.n_continuous if config.encode_covariates else 0),
            1,
            self.n_cat_list if config.encode_covariates else (),
            n_layers=config.n_layers_encoder,
            n_hidden=self.n_hidden,
            use_batch_norm=config.use_batch_norm in ("encoder", "both"),
            use_layer_norm=config.use_layer_norm in ("encoder", "both"),
            inject_covariates=config.deeply_inject_covariates,
        )

    @property
    def n_cat_list(self) -> tuple[int, ...]:
        """Number of batches and of categories of each categorical covariate."""
        return (self.sizes.n_batch, *self.sizes.n_cats_per_cov)

    def n_dispersions(self, dispersion: str) -> tuple[int, ...]:
        """Number of inverse dispersions of a feature: () for one, or one for each category."""
        by = {"batch": (self.sizes.n_batch,), "label": (self.sizes.n_labels,)}
        return by.get(dispersion.partition("-")[2], ())

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

    def measured(self, batch: MULTIVIBatch) -> dict[str, Bool[Tensor, "cells #features"]]:
        """Which values of an output were measured."""
        masks = self.has_modality(batch)
        if "protein" in masks and self.in_panel is not None and batch.panel is not None:
            masks["protein"] = masks["protein"] & self.in_panel[batch.panel.squeeze(-1)]
        return masks

    def encode(self, batch: MULTIVIBatch) -> MULTIVILatent:
        """Posteriors of the latent, samples of it, and sizes of the cells."""
        codes = self.covariate_codes(batch) if self.config.encode_covariates else []
        features: dict[str, Any] = self.observed(batch)
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
        noise = None
        if "protein" in posteriors:
            noise = torch.randn_like(posterior.loc[:, :1].expand(-1, self.sizes.n_proteins))
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
        weights = self.mod_weights
        if self.config.modality_weights == "cell":
            unseen = batch.cell_index is None
            weights = weights.mean(0) if unseen else weights[batch.cell_index.squeeze(-1)]
        return weights.view(-1, len(MODALITIES))[:, columns]

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
        decoders = {
            "rna": self.decode_counts,
            "accessibility": self.decode_detection,
            "protein": self.decode_proteins,
        }
        return {name: decoders[name](latent, batch) for name in self.outputs}

    def decode_scale(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> Float[Tensor, "*samples cells features"]:
        """Normalized values of the first modality, without the other parameters."""
        if self.outputs[0] == "rna":
            features = concat_covariates(latent.sample, batch.continuous)
            return self.z_decoder_expression.scale(features, self.covariate_codes(batch))
        if self.outputs[0] == "accessibility":
            return self.decode_detection(latent, batch).get_normalized("scale")
        return super().decode_scale(latent, batch)

    def decode_counts(self, latent: MULTIVILatent, batch: MULTIVIBatch) -> Distribution:
        """Distribution of the counts of genes, [*samples, cells, genes]."""
        features = concat_covariates(latent.sample, batch.continuous)
        decoded = self.z_decoder_expression(features, latent.log_library, self.covariate_codes(batch))
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
            weight = self.z_decoder_accessibility.output[0].weight
            return weight.new_zeros(self.sizes.n_regions)
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
            values if values.ndim == 1 else functional.linear(one_hot(codes, values.shape[1]), values)
        )

    def log_likelihood(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> dict[str, Float[Tensor, " cells"]]:
        """Log-likelihood of the measured values of each modality of each cell, in nats."""
        masks, sums = self.measured(batch), {}
        if "rna" in masks:
            log_prob = self.expression_log_prob(latent, batch)
            sums["rna"] = torch.where(masks["rna"].squeeze(-1), log_prob, 0.0)
        if "accessibility" in masks:
            log_prob = self.accessibility_log_prob(latent, batch)
            sums["accessibility"] = torch.where(masks["accessibility"].squeeze(-1), log_prob, 0.0)
        if "protein" in masks:
            log_prob = self.decode_proteins(latent, batch).log_prob(batch.proteins)
            sums["protein"] = torch.where(masks["protein"], log_prob, 0.0).sum(dim=-1)
        return sums

    def expression_log_prob(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> Float[Tensor, "*samples cells"]:
        """Log-probability of the counts of the genes of each cell, in nats."""
        counts, decoder = batch.counts, self.z_decoder_expression
        assert counts is not None and latent.log_library is not None
        if latent.sample.ndim != 2 or not decoder.is_softmax or not use_compiled(counts):
            dense = counts.to_dense() if isinstance(counts, CSRBatch) else counts
            return self.decode_counts(latent, batch).log_prob(dense).sum(dim=-1)
        features = concat_covariates(latent.sample, batch.continuous)
        raw = decoder.logits(features, self.covariate_codes(batch))
        theta = None
        if self.config.gene_likelihood != "poisson":
            theta = self.inverse_dispersion(batch, raw.log_dispersion)
        return count_log_prob(counts, raw.logits, latent.log_library, theta, raw.dropout)

    def accessibility_log_prob(
        self, latent: MULTIVILatent, batch: MULTIVIBatch
    ) -> Float[Tensor, "*samples cells"]:
        """Log-probability of the detected regions of each cell, in nats."""
        regions = batch.regions
        assert regions is not None and latent.log_depth is not None
        if latent.sample.ndim != 2 or not use_compiled(regions, "bernoulli_log_prob"):
            dense = regions.to_dense() if isinstance(regions, CSRBatch) else regions
            return self.decode_detection(latent, batch).log_prob(dense).sum(dim=-1)
        features = concat_covariates(latent.sample, batch.continuous)
        logits = self.z_decoder_accessibility.logits(features, self.covariate_codes(batch))
        return bernoulli_log_prob(regions, logits, latent.log_depth, self.log_region_factors())

    def loss(self, batch: MULTIVIBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO and penalty on the distance of modalities; only the KL is weighted."""
        latent = self.encode(batch)
        reconstruction = {
            LOSS_PARTS[name]: -log_likelihood
            for name, log_likelihood in self.log_likelihood(latent, batch).items()
        }
        kl = kl_to_standard_normal(latent.posterior).sum(dim=-1)
        posteriors = [getattr(latent, name) for name in self.outputs]
        masks = torch.cat([*self.has_modality(batch).values()], dim=1)
        penalty = modality_penalty(self.config.modality_penalty, posteriors, masks)
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
