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
