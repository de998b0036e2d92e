"""Sub-networks of MultiVI, and the options and sizes that they follow from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from cellvae.contracts import GenerativeModule
from cellvae.contracts.rows import B
from cellvae.core.options import Options, option
from cellvae.errors import InvalidOptionError
from cellvae.model.networks.modality_mixture import ModalityPenalty, ModalityWeights
from cellvae.nn import DecoderSCVI, Encoder
from cellvae.nn.decoders.accessibility_decoder import AccessibilityDecoder
from cellvae.nn.decoders.protein_decoder import ProteinDecoder

Where = Literal["encoder", "decoder", "none", "both"]
MAX_DEFAULT_HIDDEN = 128
"""Largest width of the hidden layers where the user does not give one."""
MODALITIES = ("rna", "accessibility", "protein")
"""Outputs of a network with all modalities, in the order of the columns of its weights."""
FIELDS = {"rna": "counts", "accessibility": "regions", "protein": "proteins"}
"""Field of a batch with the measured values of each output."""
LOSS_PARTS = {
    "rna": "reconstruction_loss_expression",
    "accessibility": "reconstruction_loss_accessibility",
    "protein": "reconstruction_loss_protein",
}
"""Metric of each output."""


@dataclass(frozen=True, kw_only=True)
class MULTIVIConfig(Options):
    """Options of MultiVI.

    Parameters
    ----------
    modality_weights
        Weights of the modalities in the joint latent: `"equal"`, learned for each modality
        (`"universal"`), or learned for each cell (`"cell"`). Weights of cells are those of the
        cells that the model was made with, in their order: it answers for no others, and no query
        can be mapped onto it.
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
    n_genes, n_regions
        Number of genes and of regions, which are counted in the data; other numbers are refused.
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
    n_genes: int | None = option(None, at_least=0)
    n_regions: int | None = option(None, at_least=0)


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


SIZE_ENCODERS = ("l_encoder_expression.px_decoder", "l_encoder_accessibility.px_decoder")
"""Layers of the encoders of sizes: decoders by their class, which read features."""


class MultimodalNetwork(GenerativeModule[B]):
    """Encoders and decoders of genes, regions and proteins, with the names of scvi-tools' MULTIVAE.

    Sub-networks of modalities without features, and those that the options do not use, are not
    created.

    Parameters
    ----------
    sizes
        Sizes that follow from the data.
    config
        Options of the network.
    """

    sparse_fields = ("counts", "regions")
    in_panel: Tensor | None
    mod_weights: Tensor

    frozen_by: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {"freeze_expression": SIZE_ENCODERS, "freeze_batchnorm_encoder": SIZE_ENCODERS}
    )

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
        several = len(self.outputs) > 1 and sizes.n_batch > 1
        self.adversarial = several and not config.fully_paired
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
        # It is not in saved weights: without a device, a network on the meta device has no values.
        panels = torch.tensor(sizes.panels, dtype=torch.bool, device="cpu")
        in_panel = panels if sizes.panels else None
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
