"""Stack of fully connected layers that read the covariates of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.core.csr_batch import CSRBatch
from cellvae.nn.batch_norm import BatchNorm
from cellvae.nn.covariates import concat_covariates, indicator_columns
from cellvae.nn.sparse_input import SparseInputLinear

# Momentum and epsilon of scVI's batch normalisation (scvi-tools since 0.1).
BATCH_NORM_MOMENTUM = 0.01
BATCH_NORM_EPS = 0.001

Activation = Literal["relu", "leaky_relu", "none"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "none": nn.Identity,
}


class FCLayers(nn.Module):
    """Fully connected layers: linear, batch norm, layer norm, activation, dropout.

    Parameter names are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_in
        Features read by the first layer, indicator columns not counted.
    n_out
        Features given by the last layer.
    n_cat_list
        Number of categories of each categorical covariate; one with a single category is left out.
    n_layers
        Number of layers.
    n_hidden
        Width of the layers before the last.
    dropout_rate
        Probability that a feature is dropped in training.
    use_batch_norm
        Whether layers are normalised over the batch.
    use_layer_norm
        Whether layers are normalised over features.
    inject_covariates
        Whether every layer reads the covariates; otherwise only the first does.
    activation
        Function after the normalisation.
    bias
        Whether layers have a constant term.
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
    ) -> None:
        super().__init__()
        self.n_cat_list = tuple(n_cat_list)
        self.inject_covariates = inject_covariates
        n_columns = sum(n for n in self.n_cat_list if n > 1)
        widths = [n_in] + (n_layers - 1) * [n_hidden] + [n_out]
        self.fc_layers = nn.Sequential()
        for i in range(n_layers):
            n_read = widths[i] + (n_columns if i == 0 or inject_covariates else 0)
            n_given = widths[i + 1]
            layer = nn.Sequential(
                (SparseInputLinear if i == 0 else nn.Linear)(n_read, n_given, bias=bias),
                BatchNorm(n_given, momentum=BATCH_NORM_MOMENTUM, eps=BATCH_NORM_EPS)
                if use_batch_norm
                else nn.Identity(),
                nn.LayerNorm(n_given, elementwise_affine=False)
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
        """Features of the last layer, for cells with these codes of each covariate.

        Sparse features may be given where there are no covariates.
        """
        if isinstance(features, CSRBatch):
            assert not codes
            hidden: Tensor = self.fc_layers(features)
            return hidden
        columns = indicator_columns(codes, self.n_cat_list)
        samples, given = features.shape[:-2], features
        for i, layer in enumerate(self.fc_layers):
            if i == 0 or self.inject_covariates:
                given = concat_covariates(given, columns)
            given = layer(given.flatten(0, -2)).unflatten(0, (*samples, -1))
        return given
