"""Models of this package as scvi-tools reads them."""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellvae.data.files.h5ad import write_h5ad
from cellvae.errors import InvalidOptionError, NotTrainedError, quote_names
from cellvae.scvi.files import write_scvi_model
from cellvae.scvi.import_model import RENAMED_WEIGHTS
from cellvae.scvi.registry import make_registry

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from cellvae.scvi.protocols import ExportableModel

EXPORTABLE_MODELS = ("SCVI", "SCANVI", "LinearSCVI", "PEAKVI")
"""Models that scvi-tools has under the same names, with the same weights."""
CELLVAE_ONLY_OPTIONS = ("var_activation", "y_prior")
"""Options that cannot be told to scvi-tools, but for their defaults."""

LINEAR_OPTIONS = (
    "n_hidden",
    "n_latent",
    "n_layers",
    "dropout_rate",
    "dispersion",
    "gene_likelihood",
    "use_observed_lib_size",
    "latent_distribution",
)
"""Options that LinearSCVI has in scvi-tools, which knows no covariates there but the batch."""


def export_scvi_model(
    model: ExportableModel, folder: Path, prefix: str, adata: AnnData | None
) -> None:
    """Write a model into a folder that scvi-tools 1.4 and 1.5 load.

    Raises
    ------
    InvalidOptionError
        If scvi-tools has no such model, or no such option.
    NotTrainedError
        If the model has not been trained.
    """
    name = type(model).__name__
    if name not in EXPORTABLE_MODELS:
        raise InvalidOptionError(
            f"Expected one of {quote_names(EXPORTABLE_MODELS)} for format='scvi-tools'; got "
            f"{name}. "
            "Save it without format."
        )
    if not model.is_trained:
        raise NotTrainedError(f"Expected a trained model; this {name} is not. Call train() first.")
    options = non_default_options(model.config)
    if name == "SCANVI" and options.get("dispersion") == "gene-label":
        raise InvalidOptionError(
            "scvi-tools cannot make a SCANVI with dispersion='gene-label'. Save without format."
        )
    if name == "LinearSCVI":
        check_linear(model, options)
    split = model.split
    indices = (
        {} if split is None else {p: getattr(split, p) for p in ("train", "validation", "test")}
    )
    write_scvi_model(
        folder,
        prefix,
        genes=model.registration.genes,
        weights=export_weights(model),
        attributes={
            "registry_": make_registry(model),
            "init_params_": {"non_kwargs": options, "kwargs": {}},
            "is_trained_": True,
            **{f"{part}_indices_": values for part, values in indices.items()},
        },
    )
    if adata is not None:
        write_h5ad(adata, folder / f"{prefix}adata.h5ad", {})


def non_default_options(config: Any) -> dict[str, Any]:
    """Options that are not the defaults, which both packages have in common.

    Raises
    ------
    InvalidOptionError
        If one of them is known here only.
    """
    given = {
        field.name: getattr(config, field.name)
        for field in fields_of(config)
        if getattr(config, field.name) != field.default and field.name != "use_size_factor_key"
    }
    alone = [word for word in given if word in CELLVAE_ONLY_OPTIONS]
    if alone:
        raise InvalidOptionError(
            f"scvi-tools cannot be told {quote_names(alone)}. Save without format."
        )
    return {w: dict(v) if w.endswith("_kwargs") else v for w, v in given.items()}


def check_linear(model: ExportableModel, options: dict[str, Any]) -> None:
    """Refuse a LinearSCVI that scvi-tools does not have.

    Raises
    ------
    InvalidOptionError
        If it has such options or covariates.
    """
    alone = [word for word in options if word not in LINEAR_OPTIONS]
    given = model.registration.keys.to_json()
    alone += [word for word in given if word not in ("layer", "batch_key", "labels_key")]
    if options.get("dispersion") in ("gene-label", "gene-cell"):
        alone.append("dispersion")
    if alone:
        raise InvalidOptionError(
            f"The LinearSCVI of scvi-tools cannot be told {quote_names(alone)}. Save without "
            "format."
        )


def export_weights(model: ExportableModel) -> dict[str, Tensor]:
    """Weights by scvi-tools' names, with those of networks that it makes without using them."""
    found = {scvi_weight_name(name): tensor for name, tensor in model.module.state_dict().items()}
    if type(model).__name__ == "PEAKVI":
        return found
    return placeholder_weights(model, found) | found


def scvi_weight_name(name: str) -> str:
    """Name of a weight in scvi-tools."""
    for other, begin in RENAMED_WEIGHTS.items():
        if begin and name.startswith(begin):
            return other + name.removeprefix(begin)
    return name


def placeholder_weights(model: ExportableModel, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that scvi-tools wants to be there, although nothing is computed with them."""
    config: Any = model.config
    n_genes, n_hidden = model.registration.n_genes, config.n_hidden
    first = "z_encoder.encoder.fc_layers.Layer 0."
    weights = {
        name.replace("z_encoder", "l_encoder"): (
            torch.ones_like(tensor) if name.endswith("running_var") else torch.zeros_like(tensor)
        )
        for name, tensor in found.items()
        if name.startswith(first)
    }
    for part in ("mean_encoder", "var_encoder"):
        weights[f"l_encoder.{part}.weight"] = torch.zeros(1, n_hidden)
        weights[f"l_encoder.{part}.bias"] = torch.zeros(1)
    if type(model).__name__ == "LinearSCVI":
        regressor = "factor_regressor."
        weights |= {
            name.replace(regressor, "px_dropout_decoder."): torch.zeros_like(tensor)
            for name, tensor in found.items()
            if regressor in name
        }
        return weights
    for part in ("px_r_decoder", "px_dropout_decoder"):
        weights[f"decoder.{part}.weight"] = torch.zeros(n_genes, n_hidden)
        weights[f"decoder.{part}.bias"] = torch.zeros(n_genes)
    further = {"gene": 0, "gene-batch": "batch", "gene-label": "labels"}.get(config.dispersion)
    if further is not None:
        columns = (model.registration.n_categories(further),) if isinstance(further, str) else ()
        weights["px_r"] = torch.zeros(n_genes, *columns)
    return weights
