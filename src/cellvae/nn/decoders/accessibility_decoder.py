"""Decoder of chromatin accessibility: from the latent representation of a cell to log-odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.kernels import LazyLinear, lazy_linear, materialize
from cellvae.nn.fc_layers import FCLayers


class AccessibilityDecoder(nn.Module):
    """Network that predicts the log-odds of each region being accessible.

    Names of parameters are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_input
        Number of features of a cell, without the columns of covariates.
    n_output
        Number of regions.
    n_cat_list
        Number of categories of each categorical covariate.
    n_layers, n_hidden, use_batch_norm, use_layer_norm, inject_covariates
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
        """Log-odds; `codes` has the category of each cell for each covariate."""
        return materialize(self.logits(features, codes))

    def logits(
        self,
        features: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells out"] | LazyLinear:
        """Log-odds, lazy unless the last layer has hooks or was replaced."""
        return lazy_linear(self.output[0], self.px_decoder(features, codes))
