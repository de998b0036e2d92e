"""Options and network of scVI with a linear decoder (Svensson et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from cellvae.model.networks.scvi_module import SCVIConfig, SCVIModule
from cellvae.nn import LinearDecoder


@dataclass(frozen=True, kw_only=True)
class LinearSCVIConfig(SCVIConfig):
    """Options of :class:`~cellvae.model.LinearSCVI`: those of scVI, and of the linear decoder.

    Parameters
    ----------
    n_layers
        Hidden layers of the encoder; the decoder has none.
    gene_likelihood
        Distribution of the counts.
    use_observed_lib_size
        Whether the library size is the sum of the counts; otherwise it is a latent variable.
    use_layer_norm
        Whether the encoder has layer normalization; the linear decoder never has.
    bias
        Whether the decoder has a bias for each gene.
    """

    gene_likelihood: Literal["zinb", "nb", "poisson"] = "nb"
    use_observed_lib_size: bool = False
    use_layer_norm: Literal["encoder", "none"] = "none"
    bias: bool = False


class LinearSCVIModule(SCVIModule):
    """Network of scVI with a linear decoder; parameter names are those of scvi-tools."""

    accepts_sparse = SCVIModule.accepts_sparse
    config: LinearSCVIConfig
    decoder: LinearDecoder

    def make_decoder(self, n_dense: int, n_cat_list: Sequence[int]) -> LinearDecoder:
        """Linear map from the latent and the covariates."""
        n_input = self.config.n_latent + n_dense
        options = self.decoder_options
        return LinearDecoder(
            n_input, self.sizes.n_genes, n_cat_list, bias=self.config.bias, **options
        )

    def loadings(self) -> Float[Tensor, "genes latent"]:
        """Weight of each latent dimension for each gene, batch normalization included."""
        return self.decoder.weights(self.config.n_latent)
