"""Decoder: latent of a cell to the parameters of its counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.kernels import LazyLinear, materialize
from cellvae.nn.decoders.lazy_output import lazy_linear
from cellvae.nn.fc_layers import Activation, FCLayers


class CountParameters(NamedTuple):
    """What a decoder says of the counts of a batch of cells."""

    scale: Float[Tensor, "*samples cells genes"]
    """Expression of each gene as a share of the cell (softmax) or per unit of size (softplus)."""
    rate: Float[Tensor, "*samples cells genes"]
    """Expected counts before zero inflation."""
    log_dispersion: Float[Tensor, "*samples cells genes"] | None
    """Logarithm of the inverse dispersion, where it differs from cell to cell."""
    dropout: Float[Tensor, "*samples cells genes"] | None
    """Logits of a structural zero, where there are such."""


class DecoderLogits(NamedTuple):
    """What a decoder says of the counts before activations."""

    logits: Float[Tensor, "*samples cells genes"] | LazyLinear
    """Expression of each gene, to be made positive."""
    log_dispersion: Float[Tensor, "*samples cells genes"] | None
    """Logarithm of the inverse dispersion, where it differs from cell to cell."""
    dropout: Float[Tensor, "*samples cells genes"] | LazyLinear | None
    """Logits of a structural zero, where there are such."""


class DecoderSCVI(nn.Module):
    """Network that gives the parameters of the counts from a latent and covariates.

    Parameters
    ----------
    n_input
        Latent dimensions and continuous covariates.
    n_output
        Genes.
    n_cat_list
        Number of categories of each categorical covariate.
    scale_activation
        `"softmax"` for shares of a cell, `"softplus"` where cell sizes are given by the user.
    dispersion_per_cell
        Whether the inverse dispersion is decoded too.
    zero_inflation
        Whether logits of structural zeros are decoded too.
    n_layers, n_hidden, use_batch_norm, use_layer_norm, inject_covariates, activation
        As in :class:`FCLayers`; there is no dropout.
    """

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
        positive = nn.Softmax(dim=-1) if self.is_softmax else nn.Softplus()
        self.px_scale_decoder = nn.Sequential(nn.Linear(n_hidden, n_output), positive)
        self.px_r_decoder = nn.Linear(n_hidden, n_output) if dispersion_per_cell else None
        self.px_dropout_decoder = nn.Linear(n_hidden, n_output) if zero_inflation else None

    def forward(
        self,
        z: Float[Tensor, "*samples cells features"],
        log_size: Float[Tensor, "*#samples cells 1"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> CountParameters:
        """Parameters of the counts of cells with these sizes (natural logarithm) and codes."""
        raw = self.logits(z, codes)
        scale = self.px_scale_decoder[1](materialize(raw.logits))
        dropout = None if raw.dropout is None else materialize(raw.dropout)
        return CountParameters(scale, log_size.exp() * scale, raw.log_dispersion, dropout)

    def scale(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells genes"]:
        """Expression of each gene alone."""
        scale: Tensor = self.px_scale_decoder(self.px_decoder(z, codes))
        return scale

    def logits(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> DecoderLogits:
        """Parameters before activations, which need no sizes."""
        hidden = self.px_decoder(z, codes)
        dropout = self.px_dropout_decoder
        return DecoderLogits(
            lazy_linear(self.px_scale_decoder[0], hidden),
            None if self.px_r_decoder is None else self.px_r_decoder(hidden),
            None if dropout is None else lazy_linear(dropout, hidden),
        )
