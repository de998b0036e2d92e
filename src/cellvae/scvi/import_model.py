"""Models of scvi-tools as models of this package: their set-up, options, weights and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import Module
from cellvae.core.options import from_kwargs
from cellvae.data import Registration, Split
from cellvae.data.files.h5mu import read_cells
from cellvae.data.setup.axes import FeatureAxis
from cellvae.data.setup.categories import Scalar, to_python_scalar
from cellvae.data.setup.fields import (
    Field,
    FieldRecord,
)
from cellvae.data.setup.keys import keys_from_kwargs
from cellvae.errors import CellvaeError, FileFormatError, quote_names
from cellvae.scvi.files import ScviModelFile, first_table, read_scvi_model, split_indices
from cellvae.scvi.registry import SCVI_KEY_NAMES, scvi_field_name

if TYPE_CHECKING:
    from anndata import AnnData


RENAMED_WEIGHTS: Mapping[str, str] = MappingProxyType(
    {"_embeddings_dict.batch.": "batch_embedding.", "_guide.": "", "_model.": ""}
)
"""Prefixes of names of weights in scvi-tools, and the prefixes here."""
IGNORED_SCVI_OPTIONS = (
    "datamodule",
    "use_size_factor_key",
    "extra_payload_autotune",
    "use_cuda",
    "use_gpu",
)
"""Options of scvi-tools that have no effect here."""


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """Parts of a model of scvi-tools, each in the type that it has here."""

    registration: Registration[Any]
    config: Any
    module: Module[Any]
    """Network with its weights, on the CPU."""
    is_trained: bool
    split: Split | None
    cells_path: Path | None
    """File of the cells that were saved with the model."""

    def adata(self) -> AnnData | None:
        """Cells that were saved with the model."""
        return None if self.cells_path is None else read_cells(self.cells_path)


def import_scvi_model(cls: type[Any], folder: str | Path, prefix: str) -> ImportedModel:
    """Model of a class from a folder of scvi-tools.

    Raises
    ------
    FileFormatError
        If the file is damaged, of another model, or describes one that cannot be made here.
    """
    found = read_scvi_model(folder, prefix, name=cls.__name__)
    if found.name != cls.__name__:
        raise FileFormatError(
            f"Expected a saved {cls.__name__} in {folder}; got a {found.name} of scvi-tools "
            f"{found.version}. Use {found.name}.load or cellvae.load, if cellvae has that model."
        )
    try:
        registration = import_registration(found, cls)
        config = import_config(found, cls)
        with torch.device("meta"):
            module = cls.build(registration, config)
        module.load_state_dict(import_weights(found, module, cls), assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise FileFormatError(
            f"The {found.name} of scvi-tools {found.version} in {found.path} cannot be made here: "
            f"{error}"
        ) from error
    return ImportedModel(
        registration=registration,
        config=config,
        module=module,
        is_trained=bool(found.attributes.get("is_trained_")),
        split=import_split(found, registration.n_cells),
        cells_path=found.cells_path,
    )


def import_registration(found: ScviModelFile, cls: type[Any]) -> Registration[Any]:
    """What scvi-tools found in the cells."""
    known = [field.name for field in fields_of(cls.Keys)]
    setup = cls.import_scvi_setup(found.setup, found.options)
    named = {SCVI_KEY_NAMES.get(name, name): value for name, value in setup.items()}
    kwargs = {
        name: import_setup_kwargs(value)
        for name, value in named.items()
        if name in known and value is not None
    }
    keys: Any = keys_from_kwargs(kwargs, cls.Keys)
    counts = found.fields[first_table(found.fields)].get("state_registry", {})
    n_cells = int(counts.get("n_obs", counts.get("n_cells", 1)))
    records = {field.name: import_record(found, field) for field in cls.fields(keys)}
    axes: dict[str, FeatureAxis] = {}
    for field in cls.fields(keys):
        if field.axis is not None:
            axes[field.axis] = FeatureAxis(field.axis, import_features(found, field, not axes))
    return Registration(axes=axes, n_cells=n_cells, fields=records, keys=keys)


def import_features(found: ScviModelFile, field: Field, is_first: bool) -> tuple[str, ...]:
    """Names of the features of a field.

    Parameters
    ----------
    found
        The file.
    field
        Field with an axis.
    is_first
        Whether it is the first of them, whose names the file has apart.
    """
    if getattr(field, "feature_type", None) is not None:
        # Genes and regions of one AnnData are in one list, genes first.
        n_genes = int(found.options.get("n_genes") or 0)
        return found.genes[:n_genes] if field.axis == "genes" else found.genes[n_genes:]
    if is_first:
        return found.genes
    state = found.fields[scvi_field_name(field.name)]["state_registry"]
    return tuple(map(str, state["column_names"]))


def import_record(found: ScviModelFile, field: Field) -> FieldRecord:
    """What scvi-tools found for one field."""
    name = scvi_field_name(field.name)
    if name == "panel" and name not in found.fields:
        name = "batch"
    state = found.fields.get(name, {}).get("state_registry", {})
    panel = found.fields.get("panel", found.fields.get("batch", {})).get("state_registry", {})
    if "categorical_mapping" in panel:
        # Which proteins were measured is stored by the code of the panel.
        state = {**state, "panels": panel["categorical_mapping"]}
    return field.import_scvi(state, to_category_tuple)


def to_category_tuple(values: Any) -> tuple[Scalar, ...]:
    """Categories in the order of their codes."""
    found = np.asarray(values)
    # Dates as NumPy has them would become whole numbers in an array of objects.
    listed = [*found] if found.dtype.kind in "mM" else found.astype(object).tolist()
    if any(value is None for value in listed):
        raise FileFormatError(
            "Expected categories that are text, numbers, truth values, dates or durations; got "
            "objects of another type, which are not made from a file of scvi-tools. Make the model "
            "again from a column that was converted with .astype(str)."
        )
    return tuple(to_python_scalar(hashable(value)) for value in listed)


def hashable(value: Any) -> Any:
    """Tuple from a list, as which a tuple of the file was read."""
    return tuple(map(hashable, value)) if isinstance(value, list) else value


def import_setup_kwargs(value: Any) -> Any:
    """Argument of a set-up: an array of names as a list, a number as a string."""
    if isinstance(value, dict):
        return {str(key): str(name) for key, name in value.items() if name}
    if isinstance(value, np.ndarray):
        return [str(item) for item in value.tolist()]
    return str(value) if isinstance(value, int | float) else value


def import_config(found: ScviModelFile, cls: type[Any]) -> Any:
    """Options that the model was made with."""
    known = [field.name for field in fields_of(cls.Config)]
    kwargs = {w: v for w, v in found.options.items() if w not in IGNORED_SCVI_OPTIONS}
    unknown = [name for name, value in kwargs.items() if name not in known and value is not None]
    if unknown:
        raise FileFormatError(
            f"{found.name} was made with {quote_names(unknown)}, which is not an option here."
        )
    options = {name: import_option(value) for name, value in kwargs.items() if name in known}
    options = cls.import_scvi_options(options, found.version)
    try:
        return from_kwargs(cls.Config, options, found.name)
    except CellvaeError as error:
        raise FileFormatError(str(error)) from error


def import_option(value: Any) -> Any:
    """Value of an option in the type that it has here."""
    if isinstance(value, Tensor):
        return tuple(value.flatten().tolist())
    return tuple(value) if isinstance(value, list) else value


def import_weights(
    found: ScviModelFile, module: torch.nn.Module, cls: type[Any]
) -> dict[str, Tensor]:
    """Weights by their names here, without those of networks that are not used.

    Raises
    ------
    FileFormatError
        If one is missing or of another shape.
    """
    theirs = {cellvae_weight_name(name): tensor for name, tensor in found.weights.items()}
    theirs = cls.import_scvi_weights(theirs, module)
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in theirs]
    if missing:
        raise FileFormatError(
            f"Expected weights {quote_names(missing)} in {found.path}; not there."
        )
    wrong = [name for name in wanted if theirs[name].shape != wanted[name].shape]
    if wrong:
        first = wrong[0]
        raise FileFormatError(
            f"Expected weights of the shapes that the options give; '{first}' is "
            f"{[*theirs[first].shape]} and not {[*wanted[first].shape]}."
        )
    return {name: theirs[name].to(wanted[name].dtype) for name in wanted}


def cellvae_weight_name(name: str) -> str:
    """Name of a weight here."""
    for scvi_prefix, prefix in RENAMED_WEIGHTS.items():
        if name.startswith(scvi_prefix):
            return prefix + name.removeprefix(scvi_prefix)
    return name


def import_split(found: ScviModelFile, n_cells: int) -> Split | None:
    """Split of the cells; None if it is not saved, or inconsistent."""
    parts = [split_indices(found, name) for name in ("train", "validation", "test")]
    if parts[0] is None:
        return None
    empty = np.zeros(0, dtype=np.int64)
    whole = [empty if part is None else part for part in parts]
    every = np.concatenate(whole)
    if len(np.unique(every)) != len(every) or (len(every) and every.max() >= n_cells):
        return None
    return Split(train=whole[0], validation=whole[1], test=whole[2])
