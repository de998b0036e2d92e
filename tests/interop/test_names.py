"""Names of scvi-tools: they are here, or what is said of them says what to use."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cellvae as scvi
from cellvae.errors import DataMismatchError, UnknownKeyError

HERE = Path(__file__).parent
NAMES = json.loads((HERE / "names.json").read_text())
PAGE = (HERE.parents[1] / "docs" / "coming-from-scvi-tools.md").read_text()
OF_INSTANCES = {"adata", "history", "is_trained"}
NOT_FOR_USERS = {"dataloader", "data_loader_kwargs", "save_kwargs", "legacy_mudata_format"}


@pytest.mark.parametrize("name", NAMES["models"])
def test_methods_of_models_are_here_or_on_the_page(name: str) -> None:
    kind = getattr(scvi.model, name)
    missing = {word for word in NAMES["models"][name] if not hasattr(kind, word)} - OF_INSTANCES
    assert {
        word for word in missing if f"`{word}`" not in PAGE and f"`{word}(" not in PAGE
    } == set()


@pytest.mark.parametrize("name", ["SCVI", "SCANVI", "LinearSCVI"])
def test_words_of_methods_are_here(name: str) -> None:
    kind = getattr(scvi.model, name)
    known_gaps = {
        "train": {"adversarial_classifier", "n_samples_per_label", "check_val_every_n_epoch"},
        "load": {"backup_url", "datamodule", "allowed_classes_names_list"},
        "save": {"datamodule"},
        "predict": {"ig_interpretability", "ig_args"},
        "from_scvi_model": {"registry"},
        "setup_anndata": {"use_minified"},
        "differential_expression": {"importance_weighting_kwargs"},
        "get_normalized_expression": {"importance_weighting_kwargs"},
    }
    for method, words in NAMES["models"][name].items():
        if words is None or not callable(getattr(kind, method, None)):
            continue
        own = inspect.signature(getattr(kind, method)).parameters
        gap = {word for word in words if word not in own and word not in ("args", "kwargs")}
        assert gap <= NOT_FOR_USERS | known_gaps.get(method, set()), method


@pytest.mark.parametrize("part", ["data", "distributions", "nn", "train"])
def test_parts_are_here_or_say_what_to_use(part: str) -> None:
    module = importlib.import_module(f"cellvae.{part}")
    for name in NAMES["parts"][part]:
        try:
            assert getattr(module, name) is not None
        except AttributeError as error:
            assert ": " in str(error), name


def test_models_that_are_not_here_are_said_to_be_missing() -> None:
    for module, name in ((scvi.model, "TOTALVI"), (scvi.external, "SOLO")):
        with pytest.raises(AttributeError, match="does not have yet; it has SCVI, SCANVI"):
            getattr(module, name)
    with pytest.raises(AttributeError, match=r"Use cellvae\.model\.SCANVI"):
        scvi.external.SCANVI  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean 'SCVI'"):
        scvi.model.SCIV  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"read it with cellvae\.load"):
        scvi.hub  # type: ignore[attr-defined]  # noqa: B018
    assert scvi.external.POISSONVI is scvi.model.POISSONVI


def test_settings_of_scvi_tools_can_be_set(caplog: pytest.LogCaptureFixture) -> None:
    settings = type(scvi.settings)()
    for name in NAMES["parts"]["settings"]:
        getattr(settings, name)
    with caplog.at_level(logging.INFO, "cellvae"):
        settings.dl_num_workers = 3
    assert settings.dl_num_workers == 3
    assert "settings.dl_num_workers changes nothing here" in caplog.text


def test_configs_are_words_of_training() -> None:
    adata = scvi.data.synthetic_iid(batch_size=30, n_genes=10)
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, n_hidden=4)
    model.train(
        plan_config=scvi.train.TrainingPlanConfig(lr=1e-3),
        trainer_config=scvi.train.TrainerConfig(max_epochs=2, enable_progress_bar=False),
        accelerator="cpu",
    )
    assert len(model.history["elbo_train"]) == 2
    with pytest.raises(scvi.errors.UnknownOptionError, match="learning_rat"):
        model.train(plan_config=scvi.train.TrainingPlanConfig(learning_rat=0.1))


@pytest.fixture(scope="module")
def model() -> Any:
    adata = scvi.data.synthetic_iid(batch_size=30, n_genes=10)
    random = np.random.default_rng(0)
    adata.obs["donor"] = random.choice(["x", "y", "z"], adata.n_obs)
    adata.obs["age"] = random.normal(size=adata.n_obs)
    adata.layers["counts"] = adata.X.copy()
    scvi.model.SCVI.setup_anndata(
        adata,
        layer="counts",
        batch_key="batch",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
    )
    return scvi.model.SCVI(adata, n_hidden=4)


def test_the_manager_answers_what_notebooks_ask(model: Any) -> None:
    keys, manager = scvi.REGISTRY_KEYS, model.adata_manager
    adata = model.adata
    assert manager.summary_stats.n_batch == 2
    assert manager.summary_stats == {
        "n_cells": 60, "n_vars": 10, "n_batch": 2, "n_labels": 1,
        "n_extra_categorical_covs": 1, "n_extra_continuous_covs": 1,
    }  # fmt: skip
    assert manager.get_from_registry(keys.X_KEY) is adata.layers["counts"]
    codes = pd.Categorical(adata.obs["batch"]).codes[:, None]
    np.testing.assert_array_equal(manager.get_from_registry(keys.BATCH_KEY), codes)
    covariates = manager.get_from_registry(keys.CONT_COVS_KEY)
    np.testing.assert_allclose(covariates["age"], adata.obs["age"], rtol=1e-6)
    assert covariates.index.equals(adata.obs_names)
    donors = model.get_from_registry(adata, keys.CAT_COVS_KEY)["donor"]
    np.testing.assert_array_equal(donors, pd.Categorical(adata.obs["donor"]).codes)
    mapping = model.get_state_registry(keys.BATCH_KEY).categorical_mapping
    assert mapping.tolist() == ["batch_0", "batch_1"]
    assert manager.data_registry.X == {"attr_name": "layers", "attr_key": "counts"}
    assert model.data_registry(keys.BATCH_KEY).attr_name == "obs"
    assert model.get_setup_arg("layer") == "counts" and model.get_setup_arg("labels_key") is None
    assert model.get_var_names().tolist() == [*adata.var_names]
    assert model.registry["setup_args"]["categorical_covariate_keys"] == ["donor"]
    assert model.summary_string == repr(model)
    assert manager.adata is adata


def test_what_the_manager_does_not_have_is_refused(model: Any, tmp_path: Path) -> None:
    manager = model.adata_manager
    with pytest.raises(UnknownKeyError, match="Did you mean 'batch'"):
        manager.get_from_registry("batc")
    with pytest.raises(UnknownKeyError, match="no 'size_factor'"):
        manager.get_from_registry("size_factor")
    with pytest.raises(AttributeError, match="'n_cells', 'n_vars'"):
        manager.summary_stats.n_proteins  # noqa: B018
    with pytest.raises(UnknownKeyError, match="batch_key"):
        model.get_setup_arg("batchkey")
    model.save(tmp_path / "model")
    again = scvi.model.SCVI.load(tmp_path / "model")
    with pytest.raises(DataMismatchError, match="without cells"):
        again.adata_manager.get_from_registry("X")
    assert scvi.model.SCVI.load_registry(tmp_path / "model")["model_name"] == "SCVI"


def test_the_setup_is_printed(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.view_registry()
    assert "batch_1" in capsys.readouterr().out
    model.adata_manager.view_registry(hide_state_registries=True)
    shown = capsys.readouterr().out
    assert "donor" in shown and "batch_1" not in shown
    model.save(tmp_path / "model")
    scvi.model.SCVI.view_setup_args(tmp_path / "model")
    assert "counts" in capsys.readouterr().out
