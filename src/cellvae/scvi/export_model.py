"""Models of this package as scvi-tools reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellvae.data.files.h5mu import cell_file_name, write_cells
from cellvae.data.mudata_adapter import is_mudata
from cellvae.errors import InvalidOptionError, NotTrainedError, quote_names
from cellvae.scvi.files import write_scvi_model
from cellvae.scvi.import_model import RENAMED_WEIGHTS
from cellvae.scvi.registry import make_registry

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from cellvae.data import Registration
    from cellvae.scvi.protocols import ExportableModel


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
    if not model.scvi_exportable:
        raise InvalidOptionError(
            "Expected a model that scvi-tools has with the same weights for format='scvi-tools'; "
            f"got {name}. Save it without format."
        )
    if not model.is_trained:
        raise NotTrainedError(f"Expected a trained model; this {name} is not. Call train() first.")
    options = non_default_options(model)
    model.check_scvi_export(options)
    registration = model.scvi_registration()
    if adata is not None and bool(modalities_of(registration)) != is_mudata(adata):
        modalities = quote_names([*feature_names(registration)])
        raise InvalidOptionError(
            f"{name} of scvi-tools reads a MuData, and this model has an AnnData. Leave out "
            f"save_anndata, and give scvi-tools a MuData of {modalities}."
        )
    split = model.split
    indices = (
        {} if split is None else {p: getattr(split, p) for p in ("train", "validation", "test")}
    )
    write_scvi_model(
        folder,
        prefix,
        names=feature_names(registration),
        weights=export_weights(model),
        attributes={
            "registry_": make_registry(model, registration),
            "init_params_": {"non_kwargs": options, "kwargs": {}},
            "is_trained_": True,
            **{f"{part}_indices_": values for part, values in indices.items()},
        },
    )
    if adata is not None:
        write_cells(adata, folder / f"{prefix}{cell_file_name(adata)}", {})


def non_default_options(model: ExportableModel) -> dict[str, Any]:
    """Options that are not the defaults, all of which scvi-tools has too.

    Raises
    ------
    InvalidOptionError
        If scvi-tools does not have one of them.
    """
    given = {
        field.name: getattr(model.config, field.name)
        for field in fields_of(model.config)
        if getattr(model.config, field.name) != field.default
        and field.name != "use_size_factor_key"
    }
    unknown = [name for name in given if name in model.cellvae_only_options]
    if unknown:
        raise InvalidOptionError(
            f"scvi-tools has no options {quote_names(unknown)}. Save without format."
        )
    return {name: export_option(name, value) for name, value in given.items()}


def export_option(name: str, value: Any) -> Any:
    """Value of an option in the type that it has in scvi-tools."""
    if name == "y_prior":
        return torch.tensor([value])
    return dict(value) if isinstance(value, Mapping) else value


def export_weights(model: ExportableModel) -> dict[str, Tensor]:
    """Weights by scvi-tools' names, with those of networks that it creates without using them."""
    found = {scvi_weight_name(name): tensor for name, tensor in model.module.state_dict().items()}
    return model.scvi_placeholder_weights(found) | found


def scvi_weight_name(name: str) -> str:
    """Name of a weight in scvi-tools."""
    for scvi_prefix, prefix in RENAMED_WEIGHTS.items():
        if prefix and name.startswith(prefix):
            return scvi_prefix + name.removeprefix(prefix)
    return name


def modalities_of(registration: Registration[Any]) -> Mapping[str, str]:
    """Modality of each argument of the set-up; empty for an AnnData."""
    modalities: Mapping[str, str] = getattr(registration.keys, "modalities", {})
    return modalities


def feature_names(registration: Registration[Any]) -> Sequence[str] | dict[str, Sequence[str]]:
    """Names of the genes; for a MuData those of the features of each modality."""
    if not modalities_of(registration):
        return registration.genes
    fields = [registration.fields[name].field(name) for name in registration.fields]
    return {
        field.modality: registration.axes[field.axis].features
        for field in fields
        if field.axis is not None and field.modality is not None
    }
