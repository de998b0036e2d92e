"""Decoder of surface proteins: from the latent space to background and foreground counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Normal

from cellvae.nn.fc_layers import Activation, FCLayers

MIN_EXCESS = 1e-8
"""Smallest foreground mean above the background mean, as a fraction of it."""


class ProteinParameters(NamedTuple):
    """Parameters of the protein counts of a batch of cells."""

    log_background: Normal
    """Logarithm of the mean of the background counts, [*samples, cells, proteins]."""
    foreground_ratio: Float[Tensor, "*samples cells proteins"]
    """Mean of the foreground counts divided by that of the background; above 1."""
    background_logits: Float[Tensor, "*samples cells proteins"]
    """Log-odds of a count being background."""


class ProteinDecoder(nn.Module):
    """Network that predicts background, foreground and mixture of protein counts.

    Names of parameters are those of scvi-tools' DecoderADT, so that weights can be exchanged. Each
    of the three parts has hidden layers of its own; every layer reads the covariates.

    Parameters
    ----------
    n_input
        Number of latent dimensions and continuous covariates.
    n_proteins
        Number of proteins.
    n_cat_list
        Number of categories of each categorical covariate.
    n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        As in :class:`FCLayers`, of the hidden layers.
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_batchnorm_decoder": ("py_back_decoder", "py_fore_decoder", "sigmoid_decoder"),
        }
    )

    def __init__(
        self,
        n_input: int,
        n_proteins: int,
        n_cat_list: Sequence[int] = (),
        *,
        n_layers: int = 2,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        use_batch_norm: bool = False,
        use_layer_norm: bool = True,
    ) -> None:
        super().__init__()

        def hidden() -> FCLayers:
            return FCLayers(
                n_input,
                n_hidden,
                n_cat_list,
                n_layers=n_layers,
                n_hidden=n_hidden,
                dropout_rate=dropout_rate,
                use_batch_norm=use_batch_norm,
                use_layer_norm=use_layer_norm,
            )

        def linear(activation: Activation = "none") -> FCLayers:
            return FCLayers(
                n_hidden + n_input,
                n_proteins,
                n_cat_list,
                dropout_rate=0.0,
                use_batch_norm=False,
                activation=activation,
            )

        self.py_fore_decoder = hidden()
        self.py_fore_scale_decoder = linear("relu")
        self.py_background_decoder = linear()
        self.sigmoid_decoder = hidden()
        self.py_back_mean_log_alpha = linear()
        self.py_back_mean_log_beta = linear()
        self.py_back_decoder = hidden()

    def forward(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> ProteinParameters:
        """Parameters of the protein counts.

        Parameters
        ----------
        z
            Latent representation and continuous covariates.
        codes
            Category of each cell for each covariate.
        """
        background = torch.cat([self.py_back_decoder(z, codes), z], dim=-1)
        foreground = torch.cat([self.py_fore_decoder(z, codes), z], dim=-1)
        mixture = torch.cat([self.sigmoid_decoder(z, codes), z], dim=-1)
        log_background = Normal(
            self.py_back_mean_log_alpha(background, codes),
            self.py_back_mean_log_beta(background, codes).exp(),
            validate_args=False,
        )
        return ProteinParameters(
            log_background,
            self.py_fore_scale_decoder(foreground, codes) + 1 + MIN_EXCESS,
            self.py_background_decoder(mixture, codes),
        )
