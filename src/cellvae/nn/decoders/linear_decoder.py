"""Linear decoder: from the latent representation to the parameters of counts, in one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cellvae.kernels import materialize
from cellvae.nn.decoders.count_decoder import CountParameters, DecoderLogits
from cellvae.nn.fc_layers import FCLayers


class LinearDecoder(nn.Module):
    """Linear map from the latent space and covariates to the parameters of the counts.

    Names of parameters are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_input
        Number of latent dimensions and continuous covariates.
    n_output
        Number of genes.
    n_cat_list
        Number of categories of each categorical covariate.
    use_batch_norm
        Whether each gene is normalised over the batch before the activation function.
    bias
        Whether the map has a bias.
    scale_activation
        `"softmax"` for fractions of the counts of a cell; `"softplus"` if the user provides size
        factors.
    dispersion_per_cell
        Whether the inverse dispersion is predicted for each cell.
    zero_inflation
        Whether logits of structural zeros are predicted.
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_batchnorm_decoder": ("factor_regressor",),
        }
    )

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Sequence[int] = (),
        *,
        use_batch_norm: bool = True,
        bias: bool = False,
        scale_activation: Literal["softmax", "softplus"] = "softmax",
        dispersion_per_cell: bool = False,
        zero_inflation: bool = True,
    ) -> None:
        super().__init__()
        self.is_softmax = scale_activation == "softmax"

        def linear() -> FCLayers:
            return FCLayers(
                n_input,
                n_output,
                n_cat_list,
                dropout_rate=0.0,
                use_batch_norm=use_batch_norm,
                activation="none",
                bias=bias,
            )

        self.factor_regressor = linear()
        self.px_r_decoder = linear() if dispersion_per_cell else None
        self.px_dropout_decoder = linear() if zero_inflation else None

    def forward(
        self,
        z: Float[Tensor, "*samples cells features"],
        log_size: Float[Tensor, "*#samples cells 1"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> CountParameters:
        """Parameters of the counts; see :meth:`DecoderSCVI.forward`."""
        outputs = self.logits(z, codes)
        scale = self.apply_scale_activation(materialize(outputs.logits))
        dropout = None if outputs.dropout is None else materialize(outputs.dropout)
        return CountParameters(scale, log_size.exp() * scale, outputs.log_dispersion, dropout)

    def apply_scale_activation(self, logits: Tensor) -> Tensor:
        """Expression of each gene from its logits."""
        return logits.softmax(dim=-1) if self.is_softmax else functional.softplus(logits)

    def scale(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells genes"]:
        """Expression of each gene, without the other parameters."""
        return self.apply_scale_activation(self.factor_regressor(z, codes))

    def logits(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> DecoderLogits:
        """Parameters before activation functions, which do not depend on library sizes."""
        return DecoderLogits(
            self.factor_regressor(z, codes),
            None if self.px_r_decoder is None else self.px_r_decoder(z, codes),
            None if self.px_dropout_decoder is None else self.px_dropout_decoder(z, codes),
        )

    def weights(self, n_columns: int) -> Float[Tensor, "genes columns"]:
        """Effect of the first `n_columns` features on the logits of each gene, in eval mode.

        It includes the factor by which batch normalisation scales a gene.
        """
        layer: nn.Sequential = self.factor_regressor.fc_layers[0]  # type: ignore[assignment]
        linear, norm = layer[0], layer[1]
        assert isinstance(linear, nn.Linear)
        weight = linear.weight[:, :n_columns]
        if isinstance(norm, nn.BatchNorm1d):
            assert norm.running_var is not None
            weight = weight * (norm.weight / torch.sqrt(norm.running_var + norm.eps)).unsqueeze(-1)
        return weight
