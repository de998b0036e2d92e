"""MULTIVI in files of scvi-tools: its set-up there, and weights that networks here do not have."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cellvae.data import Registration
from cellvae.data.setup.fields import NumbersRecord
from cellvae.data.setup.fields.multimodal_keys import MultimodalKeys, multimodal_fields
from cellvae.data.setup.tables.feature_types import GENES, REGIONS
from cellvae.errors import InvalidOptionError

MODALITY_NAMES = {"genes": "rna", "regions": "atac", "proteins": "protein"}
"""Modalities, by the name of their axis, of a model that was set up with an AnnData."""
LAYER_ARGUMENTS = {"rna": "rna_layer", "atac": "atac_layer", "protein": "protein_layer"}
COLUMN_ARGUMENTS = ("batch_key", "categorical_covariate_keys", "continuous_covariate_keys")
OUTPUTS = {
    "n_genes": ("z_decoder_expression.",),
    "n_regions": ("z_decoder_accessibility.", "region_factors"),
    "n_proteins": ("z_decoder_pro.", "py_r"),
}
"""Beginnings of the names of weights whose last layers have a row for each feature."""
LAST_LAYERS = (
    "region_factors",
    "py_r",
    ".px_scale_decoder.",
    ".px_r_decoder.",
    ".px_dropout_decoder.",
    ".output.",
    ".py_fore_scale_decoder.",
    ".py_background_decoder.",
    ".py_back_mean_log_",
)
"""Parts of the names of weights with a row for each feature."""


def check_multimodal_export(network: Any) -> None:
    """Refuse a network of MULTIVI that scvi-tools cannot make.

    Raises
    ------
    InvalidOptionError
        If it has proteins alone, a dispersion for each label, or size factors of genes alone.
    """
    sizes, config = network.sizes, network.config
    if not (sizes.n_genes or sizes.n_regions):
        raise InvalidOptionError(
            "MULTIVI of scvi-tools needs genes or regions; this model has proteins alone. Save it "
            "without format."
        )
    if config.dispersion == "gene-label" or config.protein_dispersion == "protein-label":
        raise InvalidOptionError(
            "MULTIVI of scvi-tools has no labels, so no dispersion for each. Save without format."
        )
    if sizes.size_factor and not sizes.region_size_factor:
        raise InvalidOptionError(
            "MULTIVI of scvi-tools 1.4 reads two columns of size factors, of genes and of regions; "
            "this model has the first alone. Save it without format."
        )


def multimodal_placeholders(network: Any) -> dict[str, Tensor]:
    """Weights of all networks of scvi-tools' MULTIVAE for a network of MULTIVI, zeros.

    It has encoders and decoders of all modalities; of one without features, encoders read a single
    value and decoders return none.
    """
    sizes, config = network.sizes, network.config
    absent = [name for name in OUTPUTS if not getattr(sizes, name)]
    whole = replace(
        sizes,
        **dict.fromkeys(absent, 1),
        size_factor=False,
        region_size_factor=False,
        panels=(),
    )
    options = replace(
        config,
        n_hidden=network.n_hidden,
        n_latent=network.n_latent,
        gene_likelihood="zinb",
        dispersion="gene-cell",
    )
    with torch.device("meta"):
        weights = type(network)(whole, options).state_dict()
    without_features = tuple(prefix for name in absent for prefix in OUTPUTS[name])
    placeholders = {}
    for name, tensor in weights.items():
        shape = [*tensor.shape]
        if name.startswith(without_features) and any(part in name for part in LAST_LAYERS):
            shape[0] = 0
        make = torch.ones if name.endswith("running_var") else torch.zeros
        placeholders[name] = make(shape, dtype=tensor.dtype)
    for name in ("background_pro_alpha", "background_pro_log_beta"):
        placeholders[name] = torch.zeros(sizes.n_proteins, sizes.n_batch)
    if config.dispersion != "gene-cell":
        by = network.n_dispersions(config.dispersion)
        placeholders["px_r"] = torch.zeros(sizes.n_genes, *by)
    return placeholders


def mudata_registration(
    registration: Registration[MultimodalKeys],
) -> Registration[MultimodalKeys]:
    """Registration as scvi-tools stores it: of a MuData, with all size factors in one field.

    Of a model that was set up with an AnnData, the modalities are `"rna"`, `"atac"` and
    `"protein"`; the columns of `obs` are those of the first.
    """
    keys = registration.keys
    if not keys.modalities:
        keys = mudata_keys(registration)
    records: dict[str, Any] = {}
    for field in multimodal_fields(keys):
        record: Any = registration.fields[field.name]
        changes: dict[str, Any] = {"modality": field.modality}
        if field.name == "proteins":
            changes |= {"key": keys.protein_layer, "names_key": None}
        elif field.axis is not None:
            changes |= {"feature_type": None}
        if field.name not in ("panel", "region_size_factor"):
            records[field.name] = replace(record, **changes)
    records["size_factor"] = NumbersRecord(keys=keys.size_factor_key)
    return replace(registration, keys=keys, fields=records)


def mudata_keys(registration: Registration[MultimodalKeys]) -> MultimodalKeys:
    """Keys of the MuData that scvi-tools needs in place of an AnnData."""
    keys = registration.keys
    names = [MODALITY_NAMES[axis] for axis in registration.axes]
    modalities = {LAYER_ARGUMENTS[name]: name for name in names}
    for argument in COLUMN_ARGUMENTS:
        if getattr(keys, argument):
            modalities[argument] = names[0]
    return replace(
        keys,
        atac_layer=keys.layer,
        protein_expression_obsm_key=None,
        protein_names_uns_key=None,
        feature_types=(),
        modalities=modalities,
    )


def import_multimodal_setup(setup: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the set-up of a model of scvi-tools as arguments here.

    Parameters
    ----------
    setup
        Arguments by name.
    options
        Options of the model. Up to 1.3 they say how many features of the AnnData are genes, which
        come first.
    """
    arguments = dict(setup)
    if isinstance(arguments.get("size_factor_key"), str):
        arguments["size_factor_key"] = [arguments["size_factor_key"]]
    # scvi-tools reads size factors from the `obs` of the MuData in any case.
    ignored = ("idx_layer", "size_factor_key")
    modalities = {
        name: modality
        for name, modality in (arguments.get("modalities") or {}).items()
        if modality is not None and name not in ignored
    }
    if modalities:
        return {**arguments, "modalities": modalities}
    sizes = {GENES: options.get("n_genes"), REGIONS: options.get("n_regions")}
    return {
        **arguments,
        "feature_types": [kind for kind, n_features in sizes.items() if n_features],
    }


def import_multimodal_options(options: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Options of a model of scvi-tools; before 1.2 the default width had no limit."""
    found = dict(options)
    n_regions = int(found.get("n_regions") or 0)
    numbers = [*map(int, re.findall(r"\d+", version)[:2])]
    if n_regions and found.get("n_hidden") is None and [0] < numbers < [1, 2]:
        found["n_hidden"] = math.isqrt(n_regions)
    return found
