"""Set-up of a model in the form of scvi-tools: names of fields, and the registry itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from cellvae.errors import UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    from cellvae.data import Registration
    from cellvae.data.setup.fields import FieldRecord
    from cellvae.scvi.protocols import RegisteredModel

VERSION = "1.4.2"
"""Version of scvi-tools whose format is written."""


SETUP_KWARGS = (
    "layer",
    "batch_key",
    "labels_key",
    "unlabeled_category",
    "size_factor_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
)
"""Keyword arguments of `setup_anndata` in scvi-tools, in its order."""

SCVI_KEY_NAMES: Mapping[str, str] = MappingProxyType({"rna_layer": "layer"})
"""Arguments of `setup_mudata` in scvi-tools that are other keys here."""

SCVI_FIELD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "counts": "X",
        "features": "X",
        "regions": "atac",
        "categorical": "extra_categorical_covs",
        "continuous": "extra_continuous_covs",
    }
)
"""Names of fields in scvi-tools, where they differ."""


class RegistryKeys(NamedTuple):
    """Names that scvi-tools gives to the fields of its models."""

    X_KEY: str = "X"
    ATAC_X_KEY: str = "atac"
    BATCH_KEY: str = "batch"
    SAMPLE_KEY: str = "sample"
    LABELS_KEY: str = "labels"
    PROTEIN_EXP_KEY: str = "proteins"
    CAT_COVS_KEY: str = "extra_categorical_covs"
    CONT_COVS_KEY: str = "extra_continuous_covs"
    INDICES_KEY: str = "ind_x"
    SIZE_FACTOR_KEY: str = "size_factor"
    MINIFY_TYPE_KEY: str = "minify_type"
    LATENT_QZM_KEY: str = "latent_qzm"
    LATENT_QZV_KEY: str = "latent_qzv"
    OBSERVED_LIB_SIZE: str = "observed_lib_size"


REGISTRY_KEYS = RegistryKeys()


class AttrDict(dict[str, Any]):
    """Dictionary whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"Expected one of {quote_names([*self], most=20)}; got '{name}'."
            ) from None


def lookup(fields: dict[str, Any], key: str) -> Any:
    """Entry of a field.

    Raises
    ------
    UnknownKeyError
        If there is no such field.
    """
    if key not in fields:
        raise UnknownKeyError(
            f"Expected one of {quote_names([*fields], most=20)}; got "
            f"'{key}'.{did_you_mean(key, fields)}"
        )
    return fields[key]


def scvi_field_name(name: str) -> str:
    """Name of a field in scvi-tools; the same name for a field that scvi-tools does not have."""
    return SCVI_FIELD_NAMES.get(name, name)


def make_registry(
    model: RegisteredModel, registration: Registration[Any] | None = None
) -> dict[str, Any]:
    """Registry of a model, as scvi-tools stores it.

    Parameters
    ----------
    model
        The model.
    registration
        Registration to store; None for that of the model.
    """
    registration = model.registration if registration is None else registration
    keys = registration.keys
    given = keys.to_json()
    known = [field.name for field in fields_of(keys) if field.name not in keys.unused_keys]
    modalities = bool(getattr(keys, "modalities", {}))
    shared = [name for name in SETUP_KWARGS if name in known]
    names = [*shared, *(name for name in known if name not in shared)]
    to_scvi = {name: scvi_name for scvi_name, name in SCVI_KEY_NAMES.items() if modalities}
    return {
        "scvi_version": VERSION,
        "model_name": type(model).__name__,
        "setup_method_name": "setup_mudata" if modalities else "setup_anndata",
        "setup_args": {to_scvi.get(name, name): given.get(name) for name in names},
        "field_registries": {
            scvi_field_name(name): field_registry(name, record, model, registration)
            for name, record in registration.fields.items()
            if name not in keys.repeated_fields
        },
    }


def field_registry(
    name: str, record: FieldRecord, model: RegisteredModel, registration: Registration[Any]
) -> dict[str, Any]:
    """Registry of one field, as scvi-tools stores it."""
    field = next(field for field in model.fields(registration.keys) if field.name == name)
    axis = None if field.axis is None else registration.axes[field.axis]
    found = record.scvi_registry(scvi_field_name(name), axis, registration.n_cells)
    if record.modality is not None and found.data_registry:
        found.data_registry["mod_key"] = record.modality
    return found._asdict()
