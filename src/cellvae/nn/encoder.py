"""Encoder: from the features of a cell to a normal posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.torch_adapter import has_hooks
from cellvae.nn.fc_layers import Activation, FCLayers
from cellvae.nn.posterior import VAR_EPS, normal_posterior, sampled_normal_posterior

VarActivation = Literal["exp", "softplus"]


class Encoder(nn.Module):
    """Network that predicts mean and variance of a normal posterior for each cell.

    Parameters
    ----------
    n_input
        Number of features of a cell, without the columns of covariates.
    n_output
        Number of latent dimensions.
    n_cat_list
        Number of categories of each categorical covariate.
    distribution
        `"normal"`, or `"ln"` for a logistic normal latent representation.
    var_eps
        Added to the variance, for numerical stability.
    var_activation
        Function that makes the variance positive.
    n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm, inject_covariates, activation
        As in :class:`FCLayers`.
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_expression": ("encoder",),
            "freeze_batchnorm_encoder": ("encoder",),
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
        dropout_rate: float = 0.1,
        distribution: Literal["normal", "ln"] = "normal",
        var_eps: float = VAR_EPS,
        var_activation: VarActivation = "exp",
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        inject_covariates: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.distribution = distribution
        self.var_eps = var_eps
        self.var_activation = var_activation
        self.encoder = FCLayers(
            n_input,
            n_hidden,
            n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=dropout_rate,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            inject_covariates=inject_covariates,
            activation=activation,
        )
        self.mean_encoder = nn.Linear(n_hidden, n_output)
        self.var_encoder = nn.Linear(n_hidden, n_output)

    def forward(
        self,
        features: Float[Tensor, "cells features"] | CSRBatch,
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Normal:
        """Posterior of each cell, [cells, latent], before :meth:`transform`."""
        hidden = self.encoder(features, codes)
        if self.var_activation == "exp":
            return normal_posterior(hidden, self.mean_encoder, self.var_encoder, self.var_eps)
        variance = functional.softplus(self.var_encoder(hidden)) + self.var_eps
        return Normal(self.mean_encoder(hidden), variance.sqrt(), validate_args=False)

    def sample(
        self,
        features: Float[Tensor, "cells features"] | CSRBatch,
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> tuple[Normal, Float[Tensor, "cells latent"]]:
        """Posterior of each cell and a sample from it, [cells, latent], before :meth:`transform`.

        The same as `rsample` of the output of the encoder.
        """
        if self.var_activation != "exp" or has_hooks(self):
            posterior: Normal = self(features, codes)
            return posterior, posterior.rsample()
        hidden = self.encoder(features, codes)
        return sampled_normal_posterior(hidden, self.mean_encoder, self.var_encoder, self.var_eps)

    def transform(
        self, z: Float[Tensor, "*samples cells latent"]
    ) -> Float[Tensor, "*samples cells latent"]:
        """Latent representation that a decoder reads, from a sample of the posterior."""
        return functional.softmax(z, dim=-1) if self.distribution == "ln" else z
