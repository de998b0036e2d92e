"""PoissonVI: a variational autoencoder of fragments in regions of chromatin (Martens 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from cellvae.contracts import CountLatent
from cellvae.core.log import warn
from cellvae.core.options import option
from cellvae.data import Registration
from cellvae.errors import DataWarning
from cellvae.estimator.reference_mapping import ReferenceMappingMixin
from cellvae.inference import (
    differential_accessibility,
    get_fragment_accessibility,
    get_fragment_factors,
)
from cellvae.kernels import materialize
from cellvae.model.components.count_features import Where
from cellvae.model.count_model import CountBatch, CountModel
from cellvae.model.peakvi import atac_train_defaults
from cellvae.model.scvi import SCVIConfig, SCVIModule, sizes_of
from cellvae.nn import DecoderSCVI
from cellvae.nn.covariates import concat_covariates
from cellvae.nn.fc_layers import Activation


@dataclass(frozen=True, kw_only=True)
class POISSONVIConfig(SCVIConfig):
    """Options of :class:`POISSONVI`: those of scVI, with other defaults.

    Parameters
    ----------
    n_hidden
        Width of the hidden layers; None for the square root of the number of regions.
    n_latent
        Dimensions of the latent space; None for the square root of `n_hidden`.
    n_layers
        Hidden layers of encoder and of decoder.
    gene_likelihood
        Distribution of the fragments.
    use_batch_norm, use_layer_norm
        Which layers have batch and layer normalization.
    """

    n_hidden: int | None = option(None, at_least=1, at_most=65_536)  # type: ignore[assignment]
    n_latent: int | None = option(None, at_least=1, at_most=65_536)  # type: ignore[assignment]
    n_layers: int = option(2, at_least=1, at_most=128)
    gene_likelihood: Literal["poisson"] = "poisson"
    use_batch_norm: Where = "none"
    use_layer_norm: Where = "both"


class POISSONVIModule(SCVIModule):
    """Network of scVI with Poisson counts; parameter names are those of scvi-tools."""

    accepts_sparse = SCVIModule.accepts_sparse
    activation: ClassVar[Activation] = "leaky_relu"
    gives_probabilities: ClassVar[bool] = False
    outputs = ("accessibility",)
    decoder: DecoderSCVI

    @property
    def region_bias(self) -> nn.Parameter:
        """Log factor of each region, [regions]."""
        linear, _ = self.decoder.px_scale_decoder
        assert isinstance(linear, nn.Linear)
        return linear.bias

    def decode_scale(
        self, latent: CountLatent, batch: CountBatch
    ) -> Float[Tensor, "*samples cells regions"]:
        """Accessibility as a fraction of the cell, without the factors of the regions."""
        features = concat_covariates(latent.sample, self.dense_covariates(batch))
        decoded = self.decoder.logits(features, self.covariate_codes(batch))
        logits = materialize(decoded.logits) - self.region_bias
        _, positive = self.decoder.px_scale_decoder
        scale: Tensor = positive(logits)
        return scale


@final
class POISSONVI(ReferenceMappingMixin, CountModel):
    """Variational autoencoder of fragments in regions of chromatin (PoissonVI).

    Read counts are converted to fragments by :func:`cellvae.data.reads_to_fragments`.

    Parameters
    ----------
    adata
        AnnData that was set up by :meth:`setup_anndata`.
    **config
        Options of the network: see :class:`POISSONVIConfig`.

    Examples
    --------
    >>> import cellvae
    >>> adata = cellvae.data.synthetic_iid()
    >>> cellvae.data.reads_to_fragments(adata)
    >>> cellvae.model.POISSONVI.setup_anndata(adata, layer="fragments", batch_key="batch")
    >>> model = cellvae.model.POISSONVI(adata, n_latent=5)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_normalized_accessibility().shape
    (400, 100)

    References
    ----------
    Martens, Fischer, Yepez, Theis, Gagneur (2024): Modeling fragment counts improves single-cell
    ATAC-seq analysis. Nature Methods 21, 28.
    """

    Config: ClassVar[type[POISSONVIConfig]] = POISSONVIConfig
    config: POISSONVIConfig
    module: POISSONVIModule
    scvi_exportable: ClassVar[bool] = False
    missing_methods: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "differential_expression": (
                "use get_normalized_accessibility and differential_accessibility"
            ),
            "get_library_size_factors": "the observed number of fragments is the library size",
        }
    )

    get_normalized_accessibility = get_fragment_accessibility
    get_region_factors = get_fragment_factors
    differential_accessibility = differential_accessibility

    @staticmethod
    def build(registration: Registration, config: POISSONVIConfig) -> POISSONVIModule:
        """Network for these data and options."""
        n_hidden = config.n_hidden or max(1, math.isqrt(registration.n_genes))
        n_latent = config.n_latent or max(1, math.isqrt(n_hidden))
        sized = replace(config, n_hidden=n_hidden, n_latent=n_latent)
        return POISSONVIModule(sizes_of(registration, config), sized)

    def assemble(self, registration: Registration, config: Any, module: Any) -> None:
        """Initialize a model without cells; warn if its data were zeros and ones."""
        super().assemble(registration, config, module)
        if registration.binary:
            warn(
                "Expected numbers of fragments; got zeros and ones. PEAKVI is made for them; or "
                "give the layer with counts: "
                "POISSONVI.setup_anndata(adata, layer=...).",
                DataWarning,
            )

    def train_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults of PEAKVI's training."""
        return atac_train_defaults(kwargs)
