"""Models of scvi-tools before 0.15: three files, put into the form of later ones."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import FileFormatError
from cellvae.scvi.files.archive import TorchArchive
from cellvae.scvi.files.unpickler import read_pickle

WEIGHTS, ATTRIBUTES, GENES = OLD_FILES = ("model_params.pt", "attr.pkl", "var_names.csv")
"""Files of versions before 0.15."""
RENAMED_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "X": "X",
        "batch_indices": "batch",
        "labels": "labels",
        "cat_covs": "extra_categorical_covs",
        "cont_covs": "extra_continuous_covs",
        "protein_expression": "proteins",
    }
)
"""What a column was called, and is called later."""
NOT_IN_REGISTRY = "_scvi"
"""Beginning of the columns that scvi-tools added itself."""


@final
class Pickle:
    """File with one pickle and no tensors.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_member(self, name: str, most: int) -> bytes:
        """The pickle, of at most so many bytes.

        Raises
        ------
        FileFormatError
            If it is larger or cannot be read, or something else is asked for.
        """
        try:
            size = self.path.stat().st_size
            if name == "data.pkl" and size <= most:
                return self.path.read_bytes()
        except OSError as error:
            raise FileFormatError(f"Cannot read {self.path}: {error}.") from error
        raise FileFormatError(
            f"Expected one pickle of at most {most:,} bytes in {self.path}; got {size:,} bytes, "
            f"and it asks for '{name}'."
        )


def read_legacy(folder: Path, prefix: str, name: str) -> dict[str, Any]:
    """Values of a model in three files, as a later version would have written them.

    Parameters
    ----------
    folder, prefix
        Where the files are, and how their names begin.
    name
        Class of the model, which the files do not say.

    Raises
    ------
    FileFormatError
        If a file is missing or damaged, or asks for something that is not on the list.
    """
    missing = [file for file in OLD_FILES if not (folder / f"{prefix}{file}").is_file()]
    if missing:
        raise FileFormatError(
            f"Expected the three files of a model of scvi-tools before 0.15 in {folder}; "
            f"{', '.join(missing)} is not there."
        )
    weights = read_pickle(TorchArchive(folder / f"{prefix}{WEIGHTS}"))
    attributes = read_pickle(Pickle(folder / f"{prefix}{ATTRIBUTES}"))
    try:
        if "registry_" not in attributes:
            setup = attributes.pop("scvi_setup_dict_")
            unlabeled = attributes.get("unlabeled_category_")
            attributes["registry_"] = legacy_registry(setup, name, unlabeled)
        attributes["registry_"].setdefault("model_name", name)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"Expected {folder / (prefix + ATTRIBUTES)} to be that of a model of scvi-tools "
            f"before 0.15; it lacks {error}."
        ) from error
    return {
        "model_state_dict": weights,
        "var_names": read_gene_names(folder / f"{prefix}{GENES}"),
        "attr_dict": attributes,
    }


def read_gene_names(path: Path) -> NDArray[Any]:
    """Names of the genes, one in a line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names = [row[0] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"Cannot read the names of genes in {path}: {error}.") from error
    return np.array(names, dtype=object)


def legacy_registry(setup: Mapping[str, Any], name: str, unlabeled: Any) -> dict[str, Any]:
    """What was set up, in the form of later versions."""
    words: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    stats = setup["summary_stats"]
    for old, place in setup["data_registry"].items():
        if old not in RENAMED_ATTRIBUTES:
            continue
        later, where, key = RENAMED_ATTRIBUTES[old], place["attr_name"], place["attr_key"]
        state: dict[str, Any] = {}
        if old == "X":
            words["layer"] = key if where == "layers" else None
            state = {"n_vars": int(stats["n_vars"]), "n_obs": int(stats["n_cells"])}
        elif later in ("batch", "labels"):
            mapping = setup["categorical_mappings"][key]
            original = str(mapping["original_key"])
            words[f"{later}_key"] = None if original.startswith(NOT_IN_REGISTRY) else original
            state = {"categorical_mapping": mapping["mapping"], "original_key": original}
            if later == "labels" and unlabeled is not None:
                state["unlabeled_category"] = words["unlabeled_category"] = unlabeled
        elif old == "cat_covs":
            known = setup["extra_categoricals"]
            words["categorical_covariate_keys"] = split_names(known["keys"])
            state = {"mappings": known["mappings"], "field_keys": split_names(known["keys"])}
        elif old == "protein_expression":
            words["protein_expression_obsm_key"] = key
            state = legacy_proteins(setup)
        else:
            words["continuous_covariate_keys"] = split_names(setup["extra_continuous_keys"])
            state = {"columns": words["continuous_covariate_keys"]}
        fields[later] = {"state_registry": state, "data_registry": dict(place)}
    return {
        "scvi_version": setup["scvi_version"],
        "model_name": name,
        "setup_args": words,
        "field_registries": fields,
    }


def legacy_proteins(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Names of the proteins, and which were measured in which batch."""
    state: dict[str, Any] = {"column_names": np.array(split_names(setup["protein_names"]))}
    masks = setup.get("totalvi_batch_mask")
    if masks is not None:
        state["protein_batch_mask"] = {str(i): mask for i, mask in enumerate(masks)}
    return state


def split_names(names: Any) -> list[str]:
    """Names as a list."""
    return [str(name) for name in (names.tolist() if isinstance(names, np.ndarray) else names)]
