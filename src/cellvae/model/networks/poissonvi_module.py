"""Options and network of PoissonVI (Martens et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from cellvae.contracts import CountLatent
from cellvae.core.options import option
from cellvae.kernels import materialize
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.components.count_features import Where
from cellvae.model.networks.scvi_module import SCVIConfig, SCVIModule
from cellvae.nn import DecoderSCVI
from cellvae.nn.covariates import concat_covariates
from cellvae.nn.fc_layers import Activation


@dataclass(frozen=True, kw_only=True)
class POISSONVIConfig(SCVIConfig):
    """Options of :class:`~cellvae.model.POISSONVI`: those of scVI, with other defaults.

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
