"""Encoder of genes and proteins: from the counts of a cell to the posterior of its latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from cellvae.core.csr_batch import CSRBatch
from cellvae.nn.covariates import one_hot_covariates
from cellvae.nn.fc_layers import FCLayers
from cellvae.nn.posterior import normal_posterior


class EncoderTOTALVI(nn.Module):
    """Network that predicts the posteriors of the latent and of the log library size of a cell.

    Names of parameters are those of scvi-tools, so that weights can be exchanged.

    Parameters
    ----------
    n_input
        Number of genes, proteins and continuous covariates.
    n_output
        Number of latent dimensions.
    n_cat_list
        Number of categories of each categorical covariate.
    distribution
        `"normal"`, or `"ln"` for a logistic normal latent representation.
    latent_library
        Whether the library size of genes is a latent variable too.
    n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        As in :class:`FCLayers`.
    """

    frozen_by: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "freeze_expression": ("encoder", "l_gene_encoder"),
            "freeze_batchnorm_encoder": ("encoder", "l_gene_encoder"),
        }
    )

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Sequence[int] = (),
        *,
        n_layers: int = 2,
        n_hidden: int = 256,
        dropout_rate: float = 0.1,
        distribution: Literal["normal", "ln"] = "normal",
        latent_library: bool = True,
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.distribution = distribution

        def layers(n_layers: int) -> FCLayers:
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

        self.encoder = layers(n_layers)
        self.z_mean_encoder = nn.Linear(n_hidden, n_output)
        self.z_var_encoder = nn.Linear(n_hidden, n_output)
        self.l_gene_encoder = layers(1) if latent_library else None
        self.l_gene_mean_encoder = nn.Linear(n_hidden, 1) if latent_library else None
        self.l_gene_var_encoder = nn.Linear(n_hidden, 1) if latent_library else None

    def forward(
        self,
        genes: Float[Tensor, "cells genes"] | CSRBatch,
        others: Float[Tensor, "cells others"],
        codes: Sequence[Int[Tensor, "cells 1"]] = (),
    ) -> tuple[Normal, Normal | None]:
        """Posteriors of the latent, before :meth:`transform`, and of the log library size.

        Parameters
        ----------
        genes
            Features of the genes, dense or sparse.
        others
            Features of the proteins, and continuous covariates.
        codes
            Category of each cell for each categorical covariate.
        """
        columns = one_hot_covariates(codes, self.encoder.n_cat_list)
        hidden = self.encoder.forward_columns(genes, columns, others)
        posterior = normal_posterior(hidden, self.z_mean_encoder, self.z_var_encoder)
        if self.l_gene_encoder is None:
            return posterior, None
        assert self.l_gene_mean_encoder is not None and self.l_gene_var_encoder is not None
        hidden = self.l_gene_encoder.forward_columns(genes, columns, others)
        return posterior, normal_posterior(
            hidden, self.l_gene_mean_encoder, self.l_gene_var_encoder
        )

    def transform(
        self, z: Float[Tensor, "*samples cells latent"]
    ) -> Float[Tensor, "*samples cells latent"]:
        """Latent representation that a decoder reads, from a sample of the posterior."""
        return functional.softmax(z, dim=-1) if self.distribution == "ln" else z
