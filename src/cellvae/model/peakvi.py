"""PeakVI: a variational autoencoder of chromatin accessibility (Ashuach et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from cellvae.contracts import CountLatent, GenerativeModule, Loss
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.options import Options, option
from cellvae.data import Registration
from cellvae.data.setup.fields import Categories, Category, Counts, Field, Numbers
from cellvae.data.setup.keys import Keys
from cellvae.data.setup.minified import MinifiedType
from cellvae.distributions.detection import Detection
from cellvae.distributions.normal import kl_of_cells
from cellvae.errors import InvalidOptionError
from cellvae.estimator.model import Model
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import (
    differential_accessibility,
    get_depth_factors,
    get_elbo,
    get_latent_representation,
    get_marginal_ll,
    get_normalized_accessibility,
    get_reconstruction_error,
    get_region_factors,
)
from cellvae.kernels import bernoulli_log_prob, use_compiled
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.components.count_features import Where
from cellvae.model.components.default_early_stopping import default_early_stopping
from cellvae.nn import Encoder
from cellvae.nn.covariates import concat_covariates
from cellvae.nn.decoders.accessibility_decoder import AccessibilityDecoder

OF_PEAKS = "use get_normalized_accessibility and differential_accessibility"
NO_DENSITY = "it is there for models of counts; the density of any latent can be estimated from it"


@dataclass(frozen=True, kw_only=True)
class AtacKeys(Keys):
    """Keyword arguments of :meth:`PEAKVI.setup_anndata`.

    Parameters
    ----------
    batch_key
        Column of `adata.obs` with the batch of each cell.
    labels_key
        Column of `adata.obs` with the label of each cell.
    categorical_covariate_keys
        Columns of `adata.obs` with further categories to correct for.
    continuous_covariate_keys
        Columns of `adata.obs` with numbers to correct for.
    layer
        Layer that holds the counts, or zeros and ones, of regions; None for `X`.
    """

    batch_key: str | None = None
    labels_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()
    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class PEAKVIConfig(Options):
    """Options of :class:`PEAKVI`.

    Parameters
    ----------
    n_hidden
        Width of the hidden layers; None for the square root of the number of regions.
    n_latent
        Dimensions of the latent space; None for the square root of `n_hidden`.
    n_layers_encoder, n_layers_decoder
        Hidden layers.
    dropout_rate
        Probability that a feature is dropped in the encoder.
    model_depth
        Whether each cell has a depth factor.
    region_factors
        Whether each region has a detection factor.
    use_batch_norm, use_layer_norm
        Which layers have batch and layer normalization.
    latent_distribution
        `"normal"`, or `"ln"` for a logistic normal latent (fractions that sum to one).
    deeply_inject_covariates
        Whether every layer reads the covariates; otherwise only the first does.
    encode_covariates
        Whether the encoder reads batch and covariates too.
    """

    n_hidden: int | None = option(None, at_least=1, at_most=65_536)
    n_latent: int | None = option(None, at_least=1, at_most=65_536)
    n_layers_encoder: int = option(2, at_least=1, at_most=128)
    n_layers_decoder: int = option(2, at_least=1, at_most=128)
    dropout_rate: float = option(0.1, at_least=0, at_most=0.999)
    model_depth: bool = True
    region_factors: bool = True
    use_batch_norm: Where = "none"
    use_layer_norm: Where = "both"
    latent_distribution: Literal["normal", "ln"] = "normal"
    deeply_inject_covariates: bool = False
    encode_covariates: bool = False


class PEAKVIModule(GenerativeModule[CountBatch]):
    """Network of PeakVI; parameter names are those of scvi-tools' PEAKVAE.

    The encoder reads the counts, the loss only whether they are above zero.
    """

    gives_probabilities: ClassVar[bool] = True
    outputs = ("accessibility",)
    frozen_by: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            # A decoder by its class, which reads features.
            "freeze_expression": ("d_encoder.px_decoder",),
            "freeze_batchnorm_encoder": ("d_encoder.px_decoder",),
        }
    )

    def __init__(
        self, n_regions: int, n_cat_list: Sequence[int], n_continuous: int, config: PEAKVIConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.n_regions = self.n_input_regions = n_regions
        self.n_adversarial_classes = n_cat_list[0] if n_cat_list else 1
        self.n_hidden = n_hidden = config.n_hidden or max(1, math.isqrt(n_regions))
        self.n_latent = n_latent = config.n_latent or max(1, math.isqrt(n_hidden))
        encode_covariates = config.encode_covariates
        n_input = n_regions + (n_continuous if encode_covariates else 0)
        self.z_encoder = Encoder(
            n_input,
            n_latent,
            n_cat_list if encode_covariates else (),
            n_layers=config.n_layers_encoder,
            n_hidden=n_hidden,
            dropout_rate=config.dropout_rate,
            distribution=config.latent_distribution,
            var_eps=0.0,
            use_batch_norm=config.use_batch_norm in ("encoder", "both"),
            use_layer_norm=config.use_layer_norm in ("encoder", "both"),
            activation="leaky_relu",
        )
        self.z_decoder = AccessibilityDecoder(
            n_latent + n_continuous,
            n_regions,
            n_cat_list,
            n_layers=config.n_layers_decoder,
            n_hidden=n_hidden,
            use_batch_norm=config.use_batch_norm in ("decoder", "both"),
            use_layer_norm=config.use_layer_norm in ("decoder", "both"),
            inject_covariates=config.deeply_inject_covariates,
        )
        self.d_encoder = (
            AccessibilityDecoder(
                n_input,
                1,
                n_cat_list if encode_covariates else (),
                n_layers=config.n_layers_encoder,
                n_hidden=n_hidden,
            )
            if config.model_depth
            else None
        )
        self.region_factors = (
            nn.Parameter(torch.zeros(n_regions)) if config.region_factors else None
        )
        self.latent_is_gaussian = config.latent_distribution == "normal"

    @property
    def accepts_sparse(self) -> bool:
        """Whether counts of a batch may be sparse."""
        return not self.config.encode_covariates

    def transform(self, z: Tensor) -> Tensor:
        """Transform samples of the normal posterior to the input space of the decoder."""
        return self.z_encoder.transform(z)

    def encode(self, batch: CountBatch) -> CountLatent:
        """Posterior of the latent and a sample; `log_library` is the log depth factor."""
        features, codes = batch.counts, []
        if self.config.encode_covariates:
            assert isinstance(features, Tensor)
            features, codes = concat_covariates(features, batch.continuous), covariate_codes(batch)
        posterior, sample = self.z_encoder.sample(features, codes)
        depth = posterior.loc.new_zeros((len(posterior.loc), 1))
        if self.d_encoder is not None:
            depth = functional.logsigmoid(self.d_encoder(features, codes))
        return CountLatent(posterior, self.transform(sample), depth)

    def decode(self, latent: CountLatent, batch: CountBatch) -> dict[str, Distribution]:
        """Distribution of the detection of regions, [*samples, cells, regions], by its name."""
        return {"accessibility": self.decode_detection(latent, batch)}

    def decode_accessibility(
        self, latent: CountLatent, batch: CountBatch
    ) -> Float[Tensor, "*samples cells regions"]:
        """Probability that a region is accessible."""
        return self.decode_scale(latent, batch)

    def log_depth_factor(self, latent: CountLatent) -> Float[Tensor, "*samples cells 1"]:
        """Logarithm of the depth factor of each cell."""
        return latent.log_library

    def decode_detection(self, latent: CountLatent, batch: CountBatch) -> Detection:
        """Distribution of the detection of regions, [*samples, cells, regions]."""
        logits = self.z_decoder(
            concat_covariates(latent.sample, batch.continuous), covariate_codes(batch)
        )
        factor = latent.log_library
        if self.region_factors is not None:
            factor = factor + functional.logsigmoid(self.region_factors)
        return Detection(logits, factor)

    def log_likelihood(self, latent: CountLatent, batch: CountBatch) -> Float[Tensor, " cells"]:
        """Log-likelihood of the detected regions of each cell, in nats."""
        counts = batch.counts
        if latent.sample.ndim != 2 or not use_compiled(counts, "bernoulli_log_prob"):
            dense = counts.to_dense() if isinstance(counts, CSRBatch) else counts
            return self.decode_detection(latent, batch).log_prob(dense).sum(dim=-1)
        features = concat_covariates(latent.sample, batch.continuous)
        logits = self.z_decoder.logits(features, covariate_codes(batch))
        if self.region_factors is None:
            factor = features.new_zeros(self.n_regions)
        else:
            factor = functional.logsigmoid(self.region_factors)
        return bernoulli_log_prob(counts, logits, latent.log_library, factor)

    def loss(self, batch: CountBatch, kl_weight: Float[Tensor, ""]) -> Loss:
        """Negative ELBO, its KL weighted."""
        latent = self.encode(batch)
        reconstruction = -self.log_likelihood(latent, batch)
        kl = kl_of_cells(latent.posterior)
        return Loss(
            loss=(reconstruction + kl_weight * kl).mean(),
            reconstruction={"reconstruction_loss": reconstruction},
            kl_local={"kl_local": kl},
            kl_global=reconstruction.new_zeros(()),
            latent=latent.sample,
        )

    def adversarial_targets(self, batch: CountBatch) -> Int[Tensor, " cells"]:
        """Batch of each cell."""
        return batch.batch.squeeze(-1)


def covariate_codes(batch: CountBatch) -> list[Tensor]:
    """Codes of batch and categorical covariates, [cells, 1] each."""
    further = [] if batch.categorical is None else batch.categorical.split(1, dim=-1)
    return [batch.batch, *further]


@final
class PEAKVI(ReferenceMappingMixin, Model):
    """Variational autoencoder of accessible regions of chromatin (PeakVI).

    Regions with a count above zero are detected; the encoder reads the counts.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`PEAKVIConfig`.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.model.PEAKVI.setup_anndata(adata, batch_key="batch")
    >>> model = cellvae.model.PEAKVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_depth_factors().shape
    (400,)

    References
    ----------
    Ashuach, Reidenbach, Gayoso, Yosef (2022): PeakVI: a deep generative model for single-cell
    chromatin accessibility analysis. Cell Reports Methods 2, 100182.
    """

    Config: ClassVar[type[PEAKVIConfig]] = PEAKVIConfig
    Keys: ClassVar[type[AtacKeys]] = AtacKeys
    Batch: ClassVar[type[CountBatch]] = CountBatch
    config: PEAKVIConfig
    module: PEAKVIModule
    scvi_exportable: ClassVar[bool] = True
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "differential_abundance": NO_DENSITY,
            "differential_expression": OF_PEAKS,
            "get_aggregated_posterior": NO_DENSITY,
            "get_feature_correlation_matrix": OF_PEAKS,
            "get_importance_weights": "use get_marginal_ll, which weights samples by importance",
            "get_latent_library_size": "use get_library_size_factors",
            "get_likelihood_parameters": OF_PEAKS,
            "get_normalized_expression": OF_PEAKS,
            "posterior_predictive_sample": OF_PEAKS,
        }
    )

    get_latent_representation = get_latent_representation
    get_elbo = get_elbo
    get_reconstruction_error = get_reconstruction_error
    get_marginal_ll = get_marginal_ll
    get_normalized_accessibility = get_normalized_accessibility
    differential_accessibility = differential_accessibility
    get_depth_factors = get_depth_factors
    get_library_size_factors = get_depth_factors
    get_region_factors = get_region_factors

    def minify_adata(
        self,
        minified_data_type: MinifiedType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
        silent: bool = False,
    ) -> None:
        """Not supported: the depth factor of a cell comes from its counts.

        Raises
        ------
        InvalidOptionError
            Always.
        """
        raise InvalidOptionError(
            "PEAKVI cannot be minified: the depth factor of a cell comes from its counts. "
            "Keep model.get_latent_representation() instead."
        )

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """AdamW with lr 1e-4, 500 epochs, KL warm-up of 50, early stopping with patience 50.

        In runs of fewer than 100 epochs the warm-up is half of the run.
        """
        return atac_train_defaults(kwargs)

    @staticmethod
    def fields(keys: AtacKeys) -> tuple[Field, ...]:
        """Fields that the model reads from an AnnData."""
        return (
            Counts("counts", keys.layer, refuse_if_was_binary=True),
            Category("batch", keys.batch_key),
            Category("labels", keys.labels_key),
            Categories("categorical", keys.categorical_covariate_keys),
            Numbers("continuous", keys.continuous_covariate_keys),
        )

    @staticmethod
    def build(registration: Registration, config: PEAKVIConfig) -> PEAKVIModule:
        """Network for these data and options."""
        categories = registration.n_categories_by_key("categorical")
        return PEAKVIModule(
            registration.n_genes,
            (registration.n_categories("batch"), *categories),
            len(registration.keys.continuous_covariate_keys),
            config,
        )


def atac_train_defaults(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of keyword arguments of `train` for models of chromatin regions.

    Parameters
    ----------
    kwargs
        Keyword arguments that the user gave.
    """
    plan: dict[str, Any] = {"optimizer": "AdamW", "lr": 1e-4, "weight_decay": 1e-3, "eps": 1e-8}
    epochs = kwargs.get("max_epochs") or 500
    given = {**(kwargs.get("plan_kwargs") or {}), **kwargs}
    if epochs >= 100 and "n_steps_kl_warmup" not in given:
        plan["n_epochs_kl_warmup"] = 50
    if "optimizer_creator" in given:
        plan.pop("optimizer")
    return {
        "max_epochs": 500,
        "plan_kwargs": plan,
        **default_early_stopping(kwargs, patience=50),
    }
