"""Fully connected layers that read features and categorical covariates of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.core.csr_batch import CSRBatch
from cellvae.nn.covariates import concat_covariates, one_hot_covariates
from cellvae.nn.layers import BatchNorm, FCLayer, SparseInputLinear

# As in scvi-tools.
BATCH_NORM_MOMENTUM = 0.01
BATCH_NORM_EPS = 0.001

Activation = Literal["relu", "leaky_relu", "none"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "none": nn.Identity,
}


class FCLayers(nn.Module):
    """Fully connected layers, each: linear, batch norm, layer norm, activation, dropout.

    Names of parameters are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_in
        Number of input features, without the columns of covariates.
    n_out
        Number of output features.
    n_cat_list
        Number of categories of each categorical covariate; one with a single category is ignored.
    n_layers
        Number of layers.
    n_hidden
        Number of features of the layers before the last.
    dropout_rate
        Probability that a feature is set to zero in training.
    use_batch_norm
        Whether features are normalised over the batch.
    use_layer_norm
        Whether cells are normalised over their features.
    inject_covariates
        Whether every layer reads the covariates; otherwise only the first does.
    activation
        Activation function.
    bias
        Whether the linear maps have a bias.
    sparse_input
        Whether the first layer reads sparse features too; otherwise it is a plain `nn.Linear`.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_cat_list: Sequence[int] = (),
        *,
        n_layers: int = 1,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        inject_covariates: bool = True,
        activation: Activation = "relu",
        bias: bool = True,
        sparse_input: bool = True,
    ) -> None:
        super().__init__()
        self.n_cat_list = tuple(n_cat_list)
        self.inject_covariates = inject_covariates
        n_columns = sum(n for n in self.n_cat_list if n > 1)
        widths = [n_in] + (n_layers - 1) * [n_hidden] + [n_out]
        self.fc_layers = nn.Sequential()
        for i in range(n_layers):
            in_features = widths[i] + (n_columns if i == 0 or inject_covariates else 0)
            out_features = widths[i + 1]
            linear = SparseInputLinear if i == 0 and sparse_input else nn.Linear
            layer = FCLayer(
                linear(in_features, out_features, bias=bias),
                BatchNorm(out_features, momentum=BATCH_NORM_MOMENTUM, eps=BATCH_NORM_EPS)
                if use_batch_norm
                else nn.Identity(),
                nn.LayerNorm(out_features, elementwise_affine=False)
                if use_layer_norm
                else nn.Identity(),
                ACTIVATIONS[activation](),
                nn.Dropout(dropout_rate) if dropout_rate > 0 else nn.Identity(),
            )
            self.fc_layers.add_module(f"Layer {i}", layer)

    def forward(
        self,
        features: Float[Tensor, "*samples cells features"] | CSRBatch,
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells out"]:
        """Output of the last layer; `codes` has the category of each cell for each covariate.

        Features may be sparse if there are no covariates.
        """
        if isinstance(features, CSRBatch):
            assert not codes
            output: Tensor = self.fc_layers(features)
            return output
        return self.forward_columns(features, one_hot_covariates(codes, self.n_cat_list))

    def forward_columns(
        self,
        features: Float[Tensor, "*samples cells features"] | CSRBatch,
        columns: Float[Tensor, "cells columns"] | None,
        beside: Float[Tensor, "cells features"] | None = None,
    ) -> Float[Tensor, "*samples cells out"]:
        """Output of the last layer, from covariates that are one-hot encoded already.

        Parameters
        ----------
        features
            Features, dense or sparse.
        columns
            :func:`~cellvae.nn.covariates.one_hot_covariates` of all covariates.
        beside
            Further features that the first layer reads after sparse ones.
        """
        layers = list(self.fc_layers)
        if isinstance(features, CSRBatch):
            dense = columns if beside is None else concat_covariates(beside, columns)
            first = layers.pop(0)
            hidden = first(features, dense)
        else:
            hidden = features if beside is None else torch.cat([features, beside], dim=-1)
            hidden = apply_layer(layers.pop(0), concat_covariates(hidden, columns))
        for layer in layers:
            if self.inject_covariates:
                hidden = concat_covariates(hidden, columns)
            hidden = apply_layer(layer, hidden)
        return hidden


def apply_layer(
    layer: nn.Module, features: Float[Tensor, "*samples cells features"]
) -> Float[Tensor, "*samples cells out"]:
    """Output of a layer; normalization over the batch sees samples of a cell as further cells."""
    output: Tensor
    if features.ndim == 2:
        output = layer(features)
    else:
        samples = features.shape[:-2]
        output = layer(features.flatten(0, -2)).unflatten(0, (*samples, -1))
    return output
