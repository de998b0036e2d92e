"""Decoder: from the latent representation of a cell to the parameters of its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.kernels import LazyLinear, lazy_linear, materialize, stack_weights
from cellvae.nn.fc_layers import Activation, FCLayers


class CountParameters(NamedTuple):
    """Parameters of the distribution of the counts of a batch of cells."""

    scale: Float[Tensor, "*samples cells genes"]
    """Fraction of the counts of the cell (softmax), or expression per unit of size (softplus)."""
    rate: Float[Tensor, "*samples cells genes"]
    """Expected counts before zero inflation."""
    log_dispersion: Float[Tensor, "*samples cells genes"] | None
    """Logarithm of the inverse dispersion; None unless it is predicted for each cell."""
    dropout: Float[Tensor, "*samples cells genes"] | None
    """Logits of a structural zero; None without zero inflation."""


class DecoderLogits(NamedTuple):
    """Parameters of the counts before activation functions."""

    logits: Float[Tensor, "*samples cells genes"] | LazyLinear
    """Expression of each gene before softmax or softplus."""
    log_dispersion: Float[Tensor, "*samples cells genes"] | None
    """Logarithm of the inverse dispersion; None unless it is predicted for each cell."""
    dropout: Float[Tensor, "*samples cells genes"] | LazyLinear | None
    """Logits of a structural zero; None without zero inflation."""


class DecoderSCVI(nn.Module):
    """Network that predicts the parameters of the counts from the latent space and covariates.

    Names of parameters are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_input
        Number of latent dimensions and continuous covariates.
    n_output
        Number of genes.
    n_cat_list
        Number of categories of each categorical covariate.
    scale_activation
        `"softmax"` for fractions of the counts of a cell; `"softplus"` if the user provides size
        factors.
    dispersion_per_cell
        Whether the inverse dispersion is predicted for each cell.
    zero_inflation
        Whether logits of structural zeros are predicted.
    n_layers, n_hidden, use_batch_norm, use_layer_norm, inject_covariates, activation
        As in :class:`FCLayers`; there is no dropout.
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_decoder_first_layer": ("px_decoder",),
            "freeze_batchnorm_decoder": ("px_decoder",),
        }
    )

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Sequence[int] = (),
        *,
        n_layers: int = 1,
        n_hidden: int = 128,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        inject_covariates: bool = True,
        scale_activation: Literal["softmax", "softplus"] = "softmax",
        dispersion_per_cell: bool = False,
        zero_inflation: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.px_decoder = FCLayers(
            n_input,
            n_hidden,
            n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0.0,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            inject_covariates=inject_covariates,
            activation=activation,
        )
        self.is_softmax = scale_activation == "softmax"
        activation_layer = nn.Softmax(dim=-1) if self.is_softmax else nn.Softplus()
        self.px_scale_decoder = nn.Sequential(nn.Linear(n_hidden, n_output), activation_layer)
        self.px_r_decoder = nn.Linear(n_hidden, n_output) if dispersion_per_cell else None
        self.px_dropout_decoder = nn.Linear(n_hidden, n_output) if zero_inflation else None

    def stack_heads(self) -> None:
        """Store the weights of logits and dropout adjacently: their products are one on the CPU.

        Their values do not change.
        """
        logits = self.px_scale_decoder[0]
        if type(logits) is nn.Linear and type(self.px_dropout_decoder) is nn.Linear:
            stack_weights(logits, self.px_dropout_decoder)

    def forward(
        self,
        z: Float[Tensor, "*samples cells features"],
        log_size: Float[Tensor, "*#samples cells 1"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> CountParameters:
        """Parameters of the counts.

        Parameters
        ----------
        z
            Latent representation and continuous covariates.
        log_size
            Natural logarithm of the library size or size factor of each cell.
        codes
            Category of each cell for each covariate.
        """
        outputs = self.logits(z, codes)
        scale = self.px_scale_decoder[1](materialize(outputs.logits))
        dropout = None if outputs.dropout is None else materialize(outputs.dropout)
        return CountParameters(scale, log_size.exp() * scale, outputs.log_dispersion, dropout)

    def scale(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells genes"]:
        """Expression of each gene, without the other parameters."""
        scale: Tensor = self.px_scale_decoder(self.px_decoder(z, codes))
        return scale

    def logits(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> DecoderLogits:
        """Parameters before activation functions, which do not depend on library sizes."""
        hidden = self.px_decoder(z, codes)
        dropout = self.px_dropout_decoder
        return DecoderLogits(
            lazy_linear(self.px_scale_decoder[0], hidden),
            None if self.px_r_decoder is None else self.px_r_decoder(hidden),
            None if dropout is None else lazy_linear(dropout, hidden),
        )
