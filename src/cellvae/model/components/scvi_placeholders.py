"""Weights that scvi-tools creates for every model of counts, also where it does not use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cellvae.data import Registration

FIRST_LAYER = "z_encoder.encoder.fc_layers.Layer 0."


def library_encoder_placeholders(weights: Mapping[str, Tensor], n_hidden: int) -> dict[str, Tensor]:
    """Weights of the encoder of the library size.

    Parameters
    ----------
    weights
        Weights of the model, by their names in scvi-tools.
    n_hidden
        Width of the hidden layers.
    """
    placeholders = {
        name.replace("z_encoder", "l_encoder"): (
            torch.ones_like(tensor) if name.endswith("running_var") else torch.zeros_like(tensor)
        )
        for name, tensor in weights.items()
        if name.startswith(FIRST_LAYER)
    }
    for part in ("mean_encoder", "var_encoder"):
        placeholders[f"l_encoder.{part}.weight"] = torch.zeros(1, n_hidden)
        placeholders[f"l_encoder.{part}.bias"] = torch.zeros(1)
    return placeholders


def linear_dropout_placeholders(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the linear decoder of dropout, of the sizes of that of the expression."""
    return {
        name.replace("factor_regressor.", "px_dropout_decoder."): torch.zeros_like(tensor)
        for name, tensor in weights.items()
        if "factor_regressor." in name
    }


def decoder_placeholders(registration: Registration[Any], config: Any) -> dict[str, Tensor]:
    """Weights of the decoders of dispersion and dropout, and the dispersion of the genes."""
    n_genes = registration.n_genes
    placeholders = {}
    for part in ("px_r_decoder", "px_dropout_decoder"):
        placeholders[f"decoder.{part}.weight"] = torch.zeros(n_genes, config.n_hidden)
        placeholders[f"decoder.{part}.bias"] = torch.zeros(n_genes)
    fields = {"gene": (), "gene-batch": ("batch",), "gene-label": ("labels",)}
    if config.dispersion in fields:
        columns = (registration.n_categories(name) for name in fields[config.dispersion])
        placeholders["px_r"] = torch.zeros(n_genes, *columns)
    return placeholders


def gene_protein_placeholders(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of totalVI's encoder of the library size and decoder of zero inflation."""
    first, scale = "encoder.encoder.fc_layers.Layer 0.", "decoder.px_scale_decoder."
    placeholders = {}
    for name, tensor in weights.items():
        if name.startswith(first):
            is_variance = name.endswith("running_var")
            value = torch.ones_like(tensor) if is_variance else torch.zeros_like(tensor)
            placeholders[name.replace("encoder.encoder", "encoder.l_gene_encoder", 1)] = value
        if name.startswith(scale):
            new = name.replace("px_scale_decoder", "px_dropout_decoder_gene", 1)
            placeholders[new] = torch.zeros_like(tensor)
    n_hidden = weights[f"{first}0.bias"].shape[0]
    for part in ("mean", "var"):
        placeholders[f"encoder.l_gene_{part}_encoder.weight"] = torch.zeros(1, n_hidden)
        placeholders[f"encoder.l_gene_{part}_encoder.bias"] = torch.zeros(1)
    return placeholders
