"""Decoder of accessibility: features of a cell to log-odds."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.kernels import LazyLinear, materialize
from cellvae.nn.decoders.lazy_output import lazy_linear
from cellvae.nn.fc_layers import FCLayers


class AccessibilityDecoder(nn.Module):
    """Network that gives log-odds for each output; names of parameters are those of scvi-tools.

    Parameters
    ----------
    n_input
        Features of a cell, indicator columns not counted.
    n_output
        Log-odds of a cell.
    n_cat_list
        Number of categories of each categorical covariate.
    n_layers, n_hidden, use_batch_norm, use_layer_norm, inject_covariates
        As in :class:`FCLayers`; there is no dropout.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Sequence[int] = (),
        *,
        n_layers: int = 2,
        n_hidden: int = 128,
        use_batch_norm: bool = False,
        use_layer_norm: bool = True,
        inject_covariates: bool = False,
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
            activation="leaky_relu",
        )
        self.output = nn.Sequential(nn.Linear(n_hidden, n_output))

    def forward(
        self,
        features: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells out"]:
        """Log-odds of cells with these codes of each covariate."""
        return materialize(self.logits(features, codes))

    def logits(
        self,
        features: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells out"] | LazyLinear:
        """Log-odds, not computed yet where nobody watches their layer."""
        return lazy_linear(self.output[0], self.px_decoder(features, codes))
