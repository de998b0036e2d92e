"""`setup_anndata` of a model has the arguments, defaults and texts of its keys."""

from __future__ import annotations

import inspect
import pydoc
from dataclasses import dataclass, fields
from typing import Any

import pytest

import cellvae
from cellvae.core.docstrings import marked_section
from cellvae.data import synthetic_iid
from cellvae.data.setup.fields import Category, Counts
from cellvae.data.setup.keys import Keys, stored_keys
from cellvae.errors import UnknownOptionError
from cellvae.model import SCVI, LinearSCVI, Model
from cellvae.model.models import MODELS

COVARIATES = ("categorical_covariate_keys", "continuous_covariate_keys")
LABELS = ("labels_key", "unlabeled_category")
PROTEINS = (
    *("protein_expression_obsm_key", "protein_names_uns_key"),
    *("batch_key", "panel_key", "layer"),
)
TABLES = ("rna_layer", "protein_layer")
POSITIONS = {
    "SCVI": ("layer", "batch_key", "labels_key", "size_factor_key", *COVARIATES),
    "LinearSCVI": ("batch_key", "labels_key", "layer"),
    "PEAKVI": ("batch_key", "labels_key", *COVARIATES, "layer"),
    "POISSONVI": ("layer", "batch_key", "labels_key", "size_factor_key", *COVARIATES),
    "SCANVI": (
        *("labels_key", "unlabeled_category", "layer", "batch_key", "size_factor_key"),
        *COVARIATES,
    ),
    "AmortizedLDA": ("layer",),
    "TOTALVI": (*PROTEINS, "size_factor_key", *COVARIATES),
    "TOTALANVI": (*PROTEINS, "size_factor_key", *COVARIATES, *LABELS),
    "MULTIVI": ("layer", "batch_key", "size_factor_key", *COVARIATES),
}
"""Positional arguments in scvi-tools, after `adata`."""
MUDATA_POSITIONS = {
    "TOTALVI": (*TABLES, "batch_key", "panel_key", "size_factor_key", *COVARIATES, "modalities"),
    "TOTALANVI": (
        *(*TABLES, "batch_key", "panel_key", "size_factor_key", *COVARIATES, *LABELS),
        "modalities",
    ),
    "MULTIVI": (
        *("rna_layer", "atac_layer", "protein_layer", "batch_key", "size_factor_key"),
        *(*COVARIATES, "modalities"),
    ),
}
"""Positional arguments of `setup_mudata` in scvi-tools, after `mdata`; TOTALANVI's labels are ours.
"""
MADE = [name for name, cls in MODELS.items() if hasattr(cls.setup_anndata, "made_of_keys")]


@pytest.mark.parametrize("name", POSITIONS)
def test_arguments_have_the_positions_of_scvi_tools(name: str) -> None:
    signature = inspect.signature(MODELS[name].setup_anndata)
    assert tuple(signature.parameters)[1 : len(POSITIONS[name]) + 1] == POSITIONS[name]


@pytest.mark.parametrize("name", MADE)
def test_signature_and_documentation_are_those_of_the_keys(name: str) -> None:
    cls = MODELS[name]
    parameters = inspect.signature(cls.setup_anndata).parameters
    keys = getattr(cls.Keys, "anndata_keys", [field.name for field in fields(cls.Keys)])
    assert {*parameters} == {"adata", *keys}
    described = marked_section(cls.setup_anndata.__doc__ or "")
    assert [*described] == [*parameters] and all(described.values())
    shown = pydoc.render_doc(cls.setup_anndata)
    assert all(parameter in shown for parameter in parameters)
    assert cls.setup_anndata.__qualname__ == f"{name}.setup_anndata"
    assert max(map(len, (cls.setup_anndata.__doc__ or "").splitlines())) <= 100


def test_every_model_is_set_up_by_its_keys() -> None:
    assert [*MODELS] == MADE


@pytest.mark.parametrize("name", MUDATA_POSITIONS)
def test_a_mudata_is_set_up_by_the_same_keys(name: str) -> None:
    method = MODELS[name].setup_mudata
    parameters = inspect.signature(method).parameters
    assert [*parameters] == ["mdata", *MUDATA_POSITIONS[name]]
    assert all(parameters[each].default is None for each in MUDATA_POSITIONS[name])
    described = marked_section(method.__doc__ or "")
    assert [*described] == [*parameters] and all(described.values())
    of_anndata = marked_section(MODELS[name].setup_anndata.__doc__ or "")
    for each in {*described} & {*of_anndata}:
        assert described[each] == of_anndata[each].replace("`adata.obs`", "`obs`")
    assert method.__qualname__ == f"{name}.setup_mudata"
    assert max(map(len, (method.__doc__ or "").splitlines())) <= 100
    with pytest.raises(UnknownOptionError, match="'rna_layr'.*[Dd]id you mean 'rna_layer'"):
        method(object(), rna_layr="counts")


@pytest.mark.parametrize(
    ("name", "argument", "shown"),
    [
        ("TOTALVI", "protein_expression_obsm_key", "str"),
        ("TOTALVI", "layer", "str | None"),
        ("TOTALANVI", "labels_key", "str | None"),
        ("MULTIVI", "size_factor_key", "str | Sequence[str] | None"),
        ("SCANVI", "labels_key", "str"),
        ("SCVI", "categorical_covariate_keys", "Sequence[str] | None"),
    ],
)
def test_arguments_have_the_types_of_their_keys(name: str, argument: str, shown: str) -> None:
    parameter = inspect.signature(MODELS[name].setup_anndata).parameters[argument]
    assert parameter.annotation == shown
    has_default = parameter.default is not inspect.Parameter.empty
    assert has_default == shown.endswith("None")


def test_positions_store_what_names_store() -> None:
    adata = synthetic_iid(batch_size=20, n_genes=5, n_proteins=0, n_regions=0)
    adata.layers["counts"] = adata.X
    LinearSCVI.setup_anndata(adata, "batch", "labels", "counts")
    positional = stored_keys(adata, "LinearSCVI", LinearSCVI.Keys)
    LinearSCVI.setup_anndata(adata=adata, layer="counts", labels_key="labels", batch_key="batch")
    assert positional == stored_keys(adata, "LinearSCVI", LinearSCVI.Keys)
    assert positional == LinearSCVI.Keys(layer="counts", batch_key="batch", labels_key="labels")


def test_none_is_the_default() -> None:
    adata = synthetic_iid(batch_size=20, n_genes=5, n_proteins=0, n_regions=0)
    SCVI.setup_anndata(adata, None, "batch", categorical_covariate_keys=None)
    assert stored_keys(adata, "SCVI", SCVI.Keys) == SCVI.Keys(batch_key="batch")


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((), {"batch_ky": "batch"}, UnknownOptionError, "'batch_ky'.*[Dd]id you mean 'batch_key'"),
        (("a",) * 7, {}, TypeError, r"SCVI.setup_anndata\(\): too many positional"),
        ((None,), {"layer": "counts"}, TypeError, "multiple values for argument 'layer'"),
    ],
)
def test_calls_that_do_not_fit_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    adata = synthetic_iid(batch_size=20, n_genes=5, n_proteins=0, n_regions=0)
    with pytest.raises(error, match=message):
        SCVI.setup_anndata(adata, *args, **kwargs)
    assert "cellvae" not in adata.uns


def test_a_class_has_the_arguments_of_its_own_keys() -> None:
    @dataclass(frozen=True, kw_only=True)
    class ToyKeys(Keys):
        """Keys.

        Parameters
        ----------
        donor_key
            Column with the donor.
        """

        layer: str | None = None
        donor_key: str

    class Toy(Model):
        Config, Keys, Batch = SCVI.Config, ToyKeys, SCVI.Batch
        build = SCVI.build

        @staticmethod
        def fields(keys: ToyKeys) -> Any:
            return Counts("counts", keys.layer), Category("batch", keys.donor_key)

    class Swapped(Toy):
        first_setup_arguments = ("layer",)

    class Written(Toy):
        @classmethod
        def setup_anndata(cls, adata: Any) -> None: ...

    class Below(Written):
        Keys = SCVI.Keys

    assert [*inspect.signature(Toy.setup_anndata).parameters] == ["adata", "donor_key", "layer"]
    assert "Column with the donor." in (Toy.setup_anndata.__doc__ or "")
    assert "donor_key" in inspect.signature(Swapped.setup_anndata).parameters
    assert Swapped.setup_anndata.__qualname__.endswith("Swapped.setup_anndata")
    assert [*inspect.signature(Below.setup_anndata).parameters] == ["adata"]
    adata = synthetic_iid(batch_size=20, n_genes=5, n_proteins=0, n_regions=0)
    with pytest.raises(TypeError, match="missing a required argument: 'donor_key'"):
        Toy.setup_anndata(adata)
    Toy.setup_anndata(adata, "batch")
    assert adata.uns["cellvae"]["Toy"] == {"donor_key": "batch"}
    assert cellvae.model.SCVI.setup_anndata.__qualname__ == "SCVI.setup_anndata"
