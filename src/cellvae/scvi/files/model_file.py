"""A model as scvi-tools writes it (0.15 and later): one file of torch in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellvae.errors import FileFormatError
from cellvae.persistence.paths import MODEL, ModelPaths
from cellvae.scvi.files.archive import TorchArchive
from cellvae.scvi.files.legacy import OLD_FILES, read_legacy
from cellvae.scvi.files.unpickler import read_pickle

MODEL_FILE = "model.pt"
CELLS_FILES = ("adata.h5ad", "mdata.h5mu")


@final
@dataclass(frozen=True, kw_only=True)
class ScviModelFile:
    """What a file of scvi-tools says.

    Parameters
    ----------
    path
        The file.
    name
        Class of the model.
    version
        Version of scvi-tools that set up the data.
    genes
        Names of the genes.
    weights
        Tensors of the network, by scvi-tools' names.
    options
        What the model was made with, positional and further words alike.
    setup
        What `setup_anndata` was called with.
    fields
        What was found for each column, by scvi-tools' names.
    attributes
        Further attributes, such as the indices of the split.
    """

    path: Path
    name: str
    version: str
    genes: tuple[str, ...]
    weights: Mapping[str, Tensor]
    options: Mapping[str, Any]
    setup: Mapping[str, Any]
    fields: Mapping[str, Mapping[str, Any]]
    attributes: Mapping[str, Any]

    @property
    def cells_path(self) -> Path | None:
        """File of the cells that were saved with the model."""
        prefix = self.path.name.removesuffix(MODEL_FILE)
        paths = [self.path.with_name(prefix + name) for name in CELLS_FILES]
        return next((path for path in paths if path.is_file()), None)


def is_scvi_model(folder: str | Path, prefix: str = "") -> bool:
    """Whether a folder holds a model of scvi-tools, and none of this package."""
    path = Path(folder).expanduser()
    has_own = os.path.lexists(ModelPaths(path, prefix).current_path(MODEL))
    return not has_own and bool(foreign_files(path, prefix))


def foreign_files(folder: Path, prefix: str = "") -> list[Path]:
    """Files of a model of scvi-tools in a folder; none if those that tell one are not there."""
    paths = [folder / f"{prefix}{name}" for name in (MODEL_FILE, *OLD_FILES)]
    found = [path for path in paths if path.is_file()]
    return found if found and found[0] in paths[:2] else []


def read_scvi_model(
    folder: str | Path, prefix: str = "", *, name: str | None = None
) -> ScviModelFile:
    """Read a model of scvi-tools; nothing in the file is run.

    Parameters
    ----------
    folder, prefix
        Where it is, and how the names of its files begin.
    name
        Class of the model, where it is known; files before 0.15 do not say it.

    Raises
    ------
    FileFormatError
        If the file is damaged, of another kind, or asks for something that is not on the list.
    """
    path = Path(folder).expanduser() / f"{prefix}{MODEL_FILE}"
    if path.is_file():
        values = read_pickle(TorchArchive(path))
    elif name is not None:
        values = read_legacy(path.parent, prefix, name)
    else:
        raise FileFormatError(
            f"{path.parent} holds a model of scvi-tools before 0.15, whose files do not say of "
            "which class it is. Load it with that class, such as SCVI.load(folder)."
        )
    try:
        attributes = as_dict(values["attr_dict"])
        registry = as_dict(attributes["registry_"])
        init = as_dict(attributes["init_params_"])
        options = dict(as_dict(init.get("non_kwargs", {})))
        for words in as_dict(init.get("kwargs", {})).values():
            options |= as_dict(words)
        weights = as_dict(values["model_state_dict"])
        fields = as_dict(registry["field_registries"])
        genes = values["var_names"]
    except (KeyError, TypeError) as error:
        raise FileFormatError(
            f"Expected {path} to be a model of scvi-tools 0.15 or later; it lacks {error}."
        ) from error
    genes = names_of_first_axis(genes, fields.get(first_table(fields), {}))
    if not isinstance(genes, np.ndarray) or genes.ndim != 1:
        raise FileFormatError(f"Expected one list of names of genes in {path}.")
    return ScviModelFile(
        path=path,
        name=str(registry.get("model_name")),
        version=str(registry.get("scvi_version", "unknown")),
        genes=tuple(map(str, genes.tolist())),
        weights={str(k): v for k, v in weights.items() if isinstance(v, Tensor)},
        options=options,
        setup=as_dict(registry.get("setup_args", {})),
        fields={str(name): as_dict(field) for name, field in fields.items()},
        attributes=attributes,
    )


def first_table(fields: Mapping[str, Any]) -> str:
    """Name of the first table of counts: that of the genes, or of the regions without genes."""
    return "X" if "X" in fields or "atac" not in fields else "atac"


def names_of_first_axis(names: Any, field: Mapping[str, Any]) -> Any:
    """Names of the genes, where the file has those of all modalities of a MuData.

    Parameters
    ----------
    names
        Names by modality, or of all features in one list.
    field
        Registry of the counts of the genes.
    """
    modality = field.get("data_registry", {}).get("mod_key")
    if modality is None:
        return names
    if isinstance(names, dict):
        return names.get(modality)
    return field.get("state_registry", {}).get("column_names", names)


def as_dict(value: Any) -> dict[Any, Any]:
    """Dictionary of a file; anything else has no entries that could be read."""
    if not isinstance(value, dict):
        raise TypeError(f"a dictionary where it has {type(value).__name__}")
    return value


def split_indices(model: ScviModelFile, name: str) -> NDArray[np.int64] | None:
    """Positions of the cells of a split; None where they are not there."""
    found = model.attributes.get(f"{name}_indices_")
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or found.ndim != 1:
        return None
    return found.astype(np.int64)
