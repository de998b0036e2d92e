"""What a model was set up with, in the words and form of scvi-tools."""

from __future__ import annotations

from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from cellvae.data.setup.categories import scvi_categories_array
from cellvae.data.setup.records import CategoriesRecord, CategoryRecord, CountsRecord
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.errors import DataMismatchError, UnknownKeyError, did_you_mean, quote_names
from cellvae.estimator.summary import print_setup_tables
from cellvae.scvi.import_model import COLUMNS, SETUP_KWARGS

if TYPE_CHECKING:
    from anndata import AnnData

    from cellvae.estimator.base import Model

VERSION = "1.4.2"
"""Version of scvi-tools whose format is written."""


class RegistryKeys(NamedTuple):
    """Names that scvi-tools gives to what a model reads."""

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


class AnnDataManager:
    """What a model reads from its AnnData, asked for as notebooks of scvi-tools do.

    Parameters
    ----------
    model
        The model; nothing is copied from it.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def adata(self) -> AnnData | None:
        """Cells of the model."""
        return self.model.adata

    @property
    def registry(self) -> dict[str, Any]:
        """Everything that is known of the set-up, in the form of scvi-tools."""
        return make_registry(self.model)

    @property
    def data_registry(self) -> AttrDict:
        """Where each thing is read from."""
        return AttrDict(
            (name, AttrDict(field["data_registry"]))
            for name, field in self.registry["field_registries"].items()
            if field["data_registry"]
        )

    @property
    def summary_stats(self) -> AttrDict:
        """Numbers of cells, genes and categories."""
        registration = self.model.registration
        n_cells = registration.n_cells if self.adata is None else int(self.adata.n_obs)
        stats = AttrDict(n_cells=n_cells, n_vars=registration.n_genes)
        for field in self.registry["field_registries"].values():
            stats |= field["summary_stats"]
        return stats

    def get_state_registry(self, registry_key: str) -> AttrDict:
        """What was found for a field: categories and columns."""
        fields = self.registry["field_registries"]
        return AttrDict(lookup(fields, registry_key)["state_registry"])

    def get_from_registry(self, registry_key: str) -> Any:
        """Values of a field for the cells of the model.

        Returns
        -------
        The counts as they are kept; codes of a category or size factors, [cells, 1]; a table of
        several covariates, [cells, covariates].

        Raises
        ------
        UnknownKeyError
            If the model reads no such field.
        DataMismatchError
            If the model has no cells.
        """
        if self.adata is None:
            raise DataMismatchError("The model was loaded without cells. Load it with adata=...")
        return get_from_registry(self.model, self.adata, registry_key)

    def view_registry(self, hide_state_registries: bool = False) -> None:
        """Print what the model reads."""
        view_registry(self.model, hide_state_registries)


def lookup(fields: dict[str, Any], key: str) -> Any:
    """Entry of a field.

    Raises
    ------
    UnknownKeyError
        If there is none.
    """
    if key not in fields:
        raise UnknownKeyError(
            f"Expected one of {quote_names([*fields], most=20)}; got "
            f"'{key}'.{did_you_mean(key, fields)}"
        )
    return fields[key]


def get_from_registry(self: Model, adata: AnnData, registry_key: str) -> Any:
    """Values of a field for cells, as :meth:`AnnDataManager.get_from_registry` gives them.

    Parameters
    ----------
    adata
        Cells with what the model reads.
    registry_key
        Name of the field in scvi-tools: one of `cellvae.REGISTRY_KEYS`.
    """
    lookup(make_registry(self)["field_registries"], registry_key)
    name = next(own for own, theirs in COLUMNS.items() if theirs == registry_key)
    record: Any = self.registration.fields[name]
    if isinstance(record, CountsRecord):
        return count_matrix(adata, record.layer).values
    field = next(f for f in self.fields(self.registration.keys) if f.name == name)
    column: Any = field.read(adata, record, None)
    if column is None:
        raise UnknownKeyError(
            f"Expected a field that was set up; {type(self).__name__} has no '{registry_key}'."
        )
    values = column.take(torch.arange(len(column))).numpy()
    if isinstance(record, CategoryRecord) or name == "size_factor":
        return values
    return pd.DataFrame(values, index=adata.obs_names, columns=[*record.keys])


def get_state_registry(self: Model, registry_key: str) -> AttrDict:
    """What was found for a field: categories and columns."""
    return AnnDataManager(self).get_state_registry(registry_key)


def data_registry(self: Model, registry_key: str) -> AttrDict:
    """Where a field is read from."""
    return AttrDict(lookup(AnnDataManager(self).data_registry, registry_key))


def get_setup_arg(self: Model, setup_arg: str) -> Any:
    """Value of a word of `setup_anndata`; None if it was not given."""
    return lookup(make_registry(self)["setup_args"], setup_arg)


def get_var_names(self: Model) -> np.ndarray:
    """Genes of the model, in its order."""
    return np.array(self.registration.genes, dtype=object)


def view_registry(self: Model, hide_state_registries: bool = False) -> None:
    """Print what the model reads, and the categories that it knows."""
    print_setup_tables(type(self).__name__, self.registration, categories=not hide_state_registries)


def load_registry(
    cls: type[Model], dir_path: str | Path, prefix: str | None = None
) -> dict[str, Any]:
    """What a saved model was set up with, in the form of scvi-tools."""
    return make_registry(cls.load_reference(dir_path, prefix or ""))


def view_setup_args(cls: type[Model], dir_path: str | Path, prefix: str | None = None) -> None:
    """Print what a saved model was set up with."""
    view_registry(cls.load_reference(dir_path, prefix or ""), hide_state_registries=True)


def make_registry(model: Model) -> dict[str, Any]:
    """What scvi-tools keeps of the set-up."""
    registration = model.registration
    given = registration.keys.to_json()
    known = {field.name for field in fields_of(registration.keys)}
    return {
        "scvi_version": VERSION,
        "model_name": type(model).__name__,
        "setup_method_name": "setup_anndata",
        "setup_args": {word: given.get(word) for word in SETUP_KWARGS if word in known},
        "field_registries": {
            COLUMNS[name]: field_registry(name, record, model)
            for name, record in registration.fields.items()
        },
    }


def field_registry(name: str, record: Any, model: Model) -> dict[str, Any]:
    """What scvi-tools keeps of one column."""
    theirs, n_genes = COLUMNS[name], model.registration.n_genes
    empty: dict[str, Any] = {"data_registry": {}, "state_registry": {}, "summary_stats": {}}
    if isinstance(record, CountsRecord):
        place = {"attr_name": "layers" if record.layer else "X", "attr_key": record.layer}
        genes = np.array(model.registration.genes, dtype=object)
        state = {"n_obs": model.registration.n_cells, "n_vars": n_genes, "column_names": genes}
        return {"data_registry": place, "state_registry": state, "summary_stats": {}}
    if isinstance(record, CategoryRecord):
        categories: Any = scvi_categories_array(record.categories)
        if record.key is None:
            categories = np.array([0])
        state = {"categorical_mapping": categories, "original_key": record.key or f"_scvi_{theirs}"}
        if record.unlabeled is not None:
            state["unlabeled_category"] = record.unlabeled
        place = {"attr_name": "obs", "attr_key": f"_scvi_{theirs}"}
        summary = {f"n_{theirs}": len(categories)}
        return {"data_registry": place, "state_registry": state, "summary_stats": summary}
    if not record.keys:
        return empty
    if isinstance(record, CategoriesRecord):
        mappings = zip(record.keys, record.categories, strict=True)
        state = {
            "mappings": {key: scvi_categories_array(values) for key, values in mappings},
            "field_keys": list(record.keys),
            "n_cats_per_key": [len(values) for values in record.categories],
        }
        return {
            "data_registry": {"attr_name": "obsm", "attr_key": f"_scvi_{theirs}"},
            "state_registry": state,
            "summary_stats": {f"n_{theirs}": len(record.keys)},
        }
    if name == "size_factor":
        return empty | {"data_registry": {"attr_name": "obs", "attr_key": record.keys[0]}}
    columns = np.array(record.keys, dtype=object)
    return {
        "data_registry": {"attr_name": "obsm", "attr_key": f"_scvi_{theirs}"},
        "state_registry": {"columns": columns},
        "summary_stats": {f"n_{theirs}": len(record.keys)},
    }
