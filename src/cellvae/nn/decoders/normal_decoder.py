"""Decoder from one latent space to a normal distribution over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Normal

from cellvae.nn.fc_layers import FCLayers


class NormalDecoder(nn.Module):
    """Network that predicts mean and variance of a normal distribution for each cell.

    Names of parameters are those of `Decoder` in scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_input
        Number of input features, without the columns of covariates.
    n_output
        Number of dimensions of the distribution.
    n_cat_list
        Number of categories of each categorical covariate.
    n_layers, n_hidden, use_batch_norm, use_layer_norm
        As in :class:`FCLayers`; there is no dropout.
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_batchnorm_decoder": ("decoder",),
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
    ) -> None:
        super().__init__()
        self.decoder = FCLayers(
            n_input,
            n_hidden,
            n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0.0,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
        )
        self.mean_decoder = nn.Linear(n_hidden, n_output)
        self.var_decoder = nn.Linear(n_hidden, n_output)

    def forward(
        self,
        features: Float[Tensor, "cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Normal:
        """Distribution for each cell, [cells, dimensions]."""
        hidden = self.decoder(features, codes)
        std = (0.5 * self.var_decoder(hidden)).exp()
        return Normal(self.mean_decoder(hidden), std, validate_args=False)
