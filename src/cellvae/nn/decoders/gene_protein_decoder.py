"""Decoder of genes and proteins: from the latent of a cell to the parameters of its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from cellvae.kernels import LazyLinear, lazy_linear
from cellvae.nn.covariates import concat_covariates, one_hot_covariates
from cellvae.nn.fc_layers import Activation, FCLayers

# As in scvi-tools.
EPS = 1e-8


class GeneProteinLogits(NamedTuple):
    """Parameters of the counts of a batch of cells that do not depend on library sizes."""

    logits: Float[Tensor, "*samples cells genes"] | LazyLinear
    """Expression of each gene before softmax or softplus."""
    dropout: Float[Tensor, "*samples cells genes"] | LazyLinear | None
    """Logits of a structural zero of a gene; None without zero inflation."""
    log_background: Normal
    """Posterior of the log mean of the background of each protein, [*samples, cells, proteins]."""
    foreground_ratio: Float[Tensor, "*samples cells proteins"]
    """Mean of the foreground divided by that of the background, above one."""
    mixture_logits: Float[Tensor, "*samples cells proteins"]
    """Log-odds of a protein count being background."""


class DecoderTOTALVI(nn.Module):
    """Network that predicts the counts of genes and the mixture of counts of proteins.

    Four networks read latent and covariates, and each has linear heads that read its output, its
    input and the covariates: expression of genes, background of proteins, foreground of proteins,
    and mixing (with dropout of genes). Names of parameters are those of scvi-tools, so that weights
    can be exchanged.

    Parameters
    ----------
    n_input
        Number of latent dimensions and continuous covariates.
    n_output_genes, n_output_proteins
        Number of genes and of proteins.
    n_cat_list
        Number of categories of each categorical covariate.
    scale_activation
        `"softmax"` for fractions of the counts of a cell; `"softplus"` if the user provides size
        factors.
    activation_function_bg
        Function that makes the standard deviation of the background positive.
    zero_inflation
        Whether logits of structural zeros of genes are predicted.
    n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        As in :class:`~cellvae.nn.FCLayers`.

    References
    ----------
    Gayoso, Steier et al. (2021): Joint probabilistic modeling of single-cell multi-omic data with
    totalVI. Nature Methods 18, 272; equations (1) to (9).
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_decoder_first_layer": ("px_decoder",),
            "freeze_batchnorm_decoder": (
                "px_decoder",
                "py_back_decoder",
                "py_fore_decoder",
                "sigmoid_decoder",
            ),
        }
    )

    def __init__(
        self,
        n_input: int,
        n_output_genes: int,
        n_output_proteins: int,
        n_cat_list: Sequence[int] = (),
        *,
        n_layers: int = 1,
        n_hidden: int = 256,
        dropout_rate: float = 0.0,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
        scale_activation: Literal["softmax", "softplus"] = "softmax",
        activation_function_bg: Literal["exp", "softplus"] = "softplus",
        zero_inflation: bool = True,
    ) -> None:
        super().__init__()
        self.is_softmax = scale_activation == "softmax"
        self.activation_function_bg = activation_function_bg

        def layers() -> FCLayers:
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

        def head(n_output: int, activation: Activation = "none") -> FCLayers:
            return FCLayers(
                n_hidden + n_input,
                n_output,
                n_cat_list,
                dropout_rate=0.0,
                use_batch_norm=False,
                activation=activation,
                sparse_input=False,
            )

        self.px_decoder = layers()
        self.px_scale_decoder = head(n_output_genes)
        self.py_back_decoder = layers()
        self.py_back_mean_log_alpha = head(n_output_proteins)
        self.py_back_mean_log_beta = head(n_output_proteins)
        self.py_fore_decoder = layers()
        self.py_fore_scale_decoder = head(n_output_proteins, "relu")
        self.sigmoid_decoder = layers()
        self.px_dropout_decoder_gene = head(n_output_genes) if zero_inflation else None
        self.py_background_decoder = head(n_output_proteins)

    def forward(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> GeneProteinLogits:
        """Parameters of the counts.

        Parameters
        ----------
        z
            Latent representation and continuous covariates.
        codes
            Category of each cell for each categorical covariate.
        """
        columns = self.columns(codes)
        features = concat_covariates(z, columns)
        expression = self.hidden(self.px_decoder, z, columns, features)
        mixing = self.hidden(self.sigmoid_decoder, z, columns, features)
        fore = self.hidden(self.py_fore_decoder, z, columns, features)
        dropout = self.px_dropout_decoder_gene
        return GeneProteinLogits(
            logits=lazy_head(self.px_scale_decoder, expression),
            dropout=None if dropout is None else lazy_head(dropout, mixing),
            log_background=self.background_of(z, columns, features),
            foreground_ratio=self.py_fore_scale_decoder.forward_columns(fore, None) + 1 + EPS,
            mixture_logits=self.py_background_decoder.forward_columns(mixing, None),
        )

    def log_background(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Normal:
        """Posterior of the log mean of the background, without the other parameters."""
        columns = self.columns(codes)
        return self.background_of(z, columns, concat_covariates(z, columns))

    def scale(
        self,
        z: Float[Tensor, "*samples cells features"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> Float[Tensor, "*samples cells genes"]:
        """Expression of each gene, without the other parameters."""
        columns = self.columns(codes)
        hidden = self.hidden(self.px_decoder, z, columns, concat_covariates(z, columns))
        return self.activate(self.px_scale_decoder.forward_columns(hidden, None))

    def activate(
        self, logits: Float[Tensor, "*samples cells genes"]
    ) -> Float[Tensor, "*samples cells genes"]:
        """Expression of each gene, a fraction of the cell for `"softmax"`, from its logits."""
        return logits.softmax(dim=-1) if self.is_softmax else functional.softplus(logits)

    def columns(self, codes: Sequence[Tensor]) -> Tensor | None:
        """Covariates one-hot encoded, once for all layers."""
        return one_hot_covariates(codes, self.px_decoder.n_cat_list)

    def hidden(
        self, layers: FCLayers, z: Tensor, columns: Tensor | None, features: Tensor
    ) -> Tensor:
        """Output of hidden layers and `features`, z beside columns, which the heads read both."""
        if len(layers.fc_layers) == 1:
            # The single layer reads what the heads read: concatenated once for all of them.
            z, columns = features, None
        return torch.cat([layers.forward_columns(z, columns), features], dim=-1)

    def background_of(self, z: Tensor, columns: Tensor | None, features: Tensor) -> Normal:
        """Posterior of the log mean of the background."""
        hidden = self.hidden(self.py_back_decoder, z, columns, features)
        mean = self.py_back_mean_log_alpha.forward_columns(hidden, None)
        raw = self.py_back_mean_log_beta.forward_columns(hidden, None)
        scale = raw.exp() if self.activation_function_bg == "exp" else functional.softplus(raw)
        return Normal(mean, scale + EPS, validate_args=False)


def lazy_head(
    head: FCLayers, hidden: Float[Tensor, "*samples cells features"]
) -> Float[Tensor, "*samples cells out"] | LazyLinear:
    """Output of a head, a single linear layer, computed only when it is needed."""
    return lazy_linear(head.get_submodule("fc_layers.Layer 0.0"), hidden)
