"""Names of scvi-tools: they are here, or what is said of them says what to use.

`names/*.json`, written by `write_names.py`, have the public names, arguments and attributes of two
versions of scvi-tools. What is not here is explained where it is asked for, or, for arguments, in
a table of `docs/coming-from-scvi-tools.md`.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cellvae as scvi
from cellvae.errors import CellvaeError, DataMismatchError, UnknownKeyError, UnknownOptionError

HERE = Path(__file__).parent
VERSIONS = {path.stem: json.loads(path.read_text()) for path in (HERE / "names").glob("*.json")}
PAGE = (HERE.parents[1] / "docs" / "coming-from-scvi-tools.md").read_text()
EVERYWHERE = "every method"
MODELS = (
    "SCVI",
    "SCANVI",
    "LinearSCVI",
    "PEAKVI",
    "POISSONVI",
    "AmortizedLDA",
    "SOLO",
    "TOTALVI",
    "TOTALANVI",
    "MULTIVI",
)


def quoted(text: str) -> list[str]:
    """Words between backticks."""
    return re.findall(r"`([^`]+)`", text)


def rows_of(table: str) -> set[tuple[str, str]]:
    """Owner and argument of each row of one of the page's tables of arguments."""
    begin, end = (PAGE.index(f"<!-- {table}: {word} -->") for word in ("begin", "end"))
    rows = [line.split("|")[1:3] for line in PAGE[begin:end].splitlines() if "`" in line]
    return {
        (owner, argument)
        for of, arguments in rows
        for owner in quoted(of) or [EVERYWHERE]
        for argument in quoted(arguments)
    }


EXPLAINED = rows_of("arguments")


def unexplained(owner: str, missing: list[str]) -> list[str]:
    """Arguments without a row in the table."""
    return [
        word
        for word in missing
        if (owner, word) not in EXPLAINED and (EVERYWHERE, word) not in EXPLAINED
    ]


def missing_arguments(value: Any, arguments: list[str]) -> list[str]:
    """Arguments that a function or class does not have by name."""
    own = inspect.signature(value).parameters
    return [word for word in arguments if word not in own]


def says_what_to_use(error: AttributeError, name: str) -> bool:
    """Whether a message goes on after it said that there is no such name."""
    return bool(re.search(rf"has no attribute '{re.escape(name)}'(: |\. )\w", str(error)))


def resolved(package: str) -> Any:
    """Namespace here of the same name as one of scvi-tools; what was said, if there is none."""
    found: Any = scvi
    for part in package.split(".")[1:]:
        try:
            found = getattr(found, part)
        except AttributeError as error:
            assert says_what_to_use(error, part), error
            return error
    return found


def trained_model(name: str) -> Any:
    """Small model after one epoch."""
    adata = scvi.data.synthetic_iid(batch_size=60, n_genes=12)
    kwargs = {} if name == "AmortizedLDA" else {"batch_key": "batch"}
    if name in ("TOTALVI", "TOTALANVI"):
        kwargs |= {"protein_expression_obsm_key": "protein_expression"}
    if name == "MULTIVI":
        adata.var["feature_types"] = ["Gene Expression"] * 5 + ["Peaks"] * 7
    if name in ("SCANVI", "TOTALANVI"):
        kwargs |= {"labels_key": "labels", "unlabeled_category": "label_0"}
    kind = getattr(scvi.model, name)
    if name == "SOLO":
        model = kind.from_scvi_model(trained_model("SCVI"))
    else:
        kind.setup_anndata(adata, **kwargs)
        model = kind(adata)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: trained_model(name) for name in MODELS}


def refused(model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether `train` does not have a word, whatever it says of its value."""
    try:
        model.parse_train_kwargs(kwargs)
    except UnknownOptionError:
        return True
    except CellvaeError:
        pass
    return False


@pytest.fixture(params=VERSIONS)
def names(request: pytest.FixtureRequest) -> Any:
    return VERSIONS[request.param]


def test_both_versions_are_compared() -> None:
    assert {*VERSIONS} == {"1.4.2", "1.5.1"}
    assert all(version == names["version"] for version, names in VERSIONS.items())
    assert all({*names["models"]} == {*MODELS} for names in VERSIONS.values())


def test_public_names_are_here_or_say_what_to_use(names: Any) -> None:
    for package, content in names["namespaces"].items():
        module = resolved(package)
        if isinstance(module, AttributeError):
            continue
        for name in content:
            try:
                assert getattr(module, name) is not None
            except AttributeError as error:
                on_the_page = f"`{package}`" in PAGE
                assert on_the_page or says_what_to_use(error, name), f"{package}.{name}"


def compared_parts(names: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Owner in the table, class or function here, and what scvi-tools has of it."""
    for package, content in names["namespaces"].items():
        module = resolved(package)
        for name, parts in content.items():
            value = getattr(module, name, None)
            if value is not None and parts is not None:
                yield f"{package.removeprefix('scvi.')}.{name}", name, value, parts


def test_arguments_of_functions_and_classes_are_here_or_on_the_page(names: Any) -> None:
    for owner, name, value, parts in compared_parts(names):
        if name.endswith("Config"):  # dictionaries of whatever words: those of training
            continue
        missing = missing_arguments(value, parts["arguments"] or [])
        assert unexplained(owner, missing) == [], owner


def test_attributes_of_classes_are_here_or_on_the_page(names: Any) -> None:
    one = torch.ones(2)
    of_instances = {"ZeroInflatedNegativeBinomial": {"mu": one, "theta": one, "zi_logits": one}}
    for owner, name, value, parts in compared_parts(names):
        if name.endswith("Config"):
            continue
        made = value(**of_instances[name]) if name in of_instances else value
        missing = [word for word in parts.get("members", []) if not hasattr(made, word)]
        assert unexplained(owner, missing) == [], owner


def test_attributes_of_distributions_are_here(names: Any) -> None:
    one = torch.ones(2)
    made = {
        "NegativeBinomial": {"mu": one, "theta": one, "scale": one},
        "ZeroInflatedNegativeBinomial": {"mu": one, "theta": one, "zi_logits": one, "scale": one},
        "NegativeBinomialMixture": {"mu1": one, "mu2": one, "theta1": one, "mixture_logits": one},
        "Poisson": {"rate": one, "scale": one},
        "Normal": {"mu": one, "scale": one, "normal_mu": one},
        "BetaBinomial": {"total_count": one, "alpha": one, "beta": one},
    }
    for name, attributes in names["distributions"].items():
        kind = getattr(scvi.distributions, name, None)
        if kind is not None:
            missing = [word for word in attributes if not hasattr(kind(**made[name]), word)]
            assert unexplained("distributions", missing) == [], name


@pytest.mark.parametrize("name", MODELS)
def test_options_of_models_are_here_or_on_the_page(names: Any, name: str) -> None:
    kind = getattr(scvi.model, name)
    missing = missing_arguments(kind, names["models"][name]["arguments"])
    assert unexplained(name, missing) == []


@pytest.mark.trains
@pytest.mark.parametrize("name", MODELS)
def test_methods_are_here_or_say_what_to_use(names: Any, name: str, models: dict[str, Any]) -> None:
    model = models[name]
    for method, arguments in names["models"][name]["methods"].items():
        try:
            own = getattr(model, method)
        except AttributeError as error:
            assert says_what_to_use(error, method), error
            assert f"`{method}`" in PAGE, method
            continue
        if arguments is None or not callable(own):
            continue
        missing = missing_arguments(own, arguments)
        if method == "train":
            missing = [word for word in missing if refused(model, {word: None})]
        assert unexplained(method, missing) == [], method


@pytest.mark.trains
@pytest.mark.parametrize("name", MODELS)
def test_attributes_are_here_or_say_what_to_use(
    names: Any, name: str, models: dict[str, Any]
) -> None:
    for word in names["models"][name]["attributes"]:
        try:
            getattr(models[name], word)
        except AttributeError as error:
            assert says_what_to_use(error, word), error


@pytest.mark.trains
@pytest.mark.parametrize("name", MODELS)
def test_words_of_training_are_here_or_on_the_page(
    names: Any, name: str, models: dict[str, Any]
) -> None:
    model, theirs = models[name], names["models"][name]
    for of in ("plan_kwargs", "datasplitter_kwargs"):
        missing = [word for word in theirs[of] if refused(model, {of: {word: None}})]
        assert unexplained(of, missing) == [], of
    missing = [word for word in names["forwarded"]["train"] if refused(model, {word: None})]
    assert unexplained("train", missing) == []


@pytest.mark.trains
@pytest.mark.parametrize("name", MODELS)
def test_metrics_have_the_same_names(names: Any, name: str, models: dict[str, Any]) -> None:
    # Lightning calls the loss of SOLO `train_loss_epoch`, which is `train_loss` for all others.
    theirs = {metric.removesuffix("_epoch") for metric in names["models"][name]["history"]}
    assert theirs - {"train_loss_step"} <= {*models[name].history}


@pytest.mark.trains
@pytest.mark.parametrize("method", ["differential_expression", "differential_accessibility"])
def test_arguments_of_differential_tests_are_here_or_on_the_page(
    names: Any, method: str, models: dict[str, Any]
) -> None:
    for model in models.values():
        if hasattr(model, method):
            missing = missing_arguments(getattr(model, method), names["forwarded"][method])
            assert unexplained(method, missing) == []


@pytest.mark.trains
def test_rows_of_the_table_are_of_arguments_that_are_missing(models: dict[str, Any]) -> None:
    """An argument that is here now has to leave the table."""
    for owner, argument in EXPLAINED:
        if owner in MODELS:
            assert argument not in inspect.signature(getattr(scvi.model, owner)).parameters
        for model in models.values():
            own = getattr(model, owner, None) if owner.isidentifier() else None
            if callable(own):
                assert argument not in inspect.signature(own).parameters, (owner, argument)


def test_defaults_are_the_same_or_on_the_page() -> None:
    differ = {
        (method, argument)
        for names in VERSIONS.values()
        for name, theirs in names["models"].items()
        for method, defaults in theirs["defaults"].items()
        if (own := getattr(getattr(scvi.model, name), method, None)) is not None
        for argument, default in defaults.items()
        if (parameter := inspect.signature(own).parameters.get(argument)) is not None
        and parameter.default != default
    }
    assert differ == rows_of("defaults")


def test_registry_keys_are_the_same(names: Any) -> None:
    for key, value in names["registry_keys"].items():
        assert getattr(scvi.REGISTRY_KEYS, key) == value


@pytest.mark.trains
def test_attributes_with_an_underscore_are_those_without(models: dict[str, Any]) -> None:
    model = models["SCVI"]
    assert model.history_ is model.history
    assert model.registry_["setup_args"] == model.registry["setup_args"]
    assert model.summary_stats == model.adata_manager.summary_stats
    assert model.summary_stats.n_batch == 2
    for part in ("train", "validation", "test"):
        expected = getattr(model, f"{part}_indices")
        np.testing.assert_array_equal(getattr(model, f"{part}_indices_"), expected)
    options = model.init_params_["non_kwargs"]
    assert options["n_latent"] == model.n_latent == 10
    assert options["gene_likelihood"] == "zinb"
    peaks = models["PEAKVI"]
    assert peaks.init_params_["non_kwargs"]["n_latent"] is None
    assert peaks.n_latent == peaks.get_latent_representation().shape[1]
    model.is_trained_ = False
    assert not model.is_trained
    model.is_trained_ = True
    assert model.is_trained


@pytest.mark.trains
def test_scanvi_tells_of_its_labels(models: dict[str, Any]) -> None:
    model = models["SCANVI"]
    labels = model.adata.obs["labels"].to_numpy()
    np.testing.assert_array_equal(model.labels_, labels)
    assert (model.original_label_key, model.unlabeled_category_) == ("labels", "label_0")
    np.testing.assert_array_equal(model._labeled_indices, np.flatnonzero(labels != "label_0"))
    np.testing.assert_array_equal(model._unlabeled_indices, np.flatnonzero(labels == "label_0"))


@pytest.mark.trains
def test_misspelt_attributes_are_corrected(models: dict[str, Any]) -> None:
    with pytest.raises(AttributeError, match="Did you mean 'get_latent_representation'"):
        models["SCVI"].get_latent_represenation()
    with pytest.raises(AttributeError, match="Did you mean 'setup_anndata'"):
        scvi.model.SCVI.setup_andata  # noqa: B018
    with pytest.raises(AttributeError, match="use get_normalized_accessibility"):
        scvi.model.PEAKVI.get_normalized_expression  # noqa: B018
    assert not hasattr(models["SCVI"], "__array__")


def test_the_error_of_a_property_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> None:
        raise AttributeError("what went wrong inside")

    monkeypatch.setattr(scvi.model.SCVI, "summary_string", property(broken))
    adata = scvi.data.synthetic_iid(batch_size=30, n_genes=10)
    scvi.model.SCVI.setup_anndata(adata)
    with pytest.raises(AttributeError, match="what went wrong inside"):
        scvi.model.SCVI(adata, n_hidden=4).summary_string  # noqa: B018


def test_models_that_are_not_here_are_said_to_be_missing() -> None:
    for module, name in ((scvi.model, "AUTOZI"), (scvi.external, "GIMVI")):
        with pytest.raises(AttributeError, match="does not have yet; it has SCVI, SCANVI"):
            getattr(module, name)
    with pytest.raises(AttributeError, match=r"Use cellvae\.model\.SCANVI"):
        scvi.external.SCANVI  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean 'SCVI'"):
        scvi.model.SCIV  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"read it with cellvae\.load"):
        scvi.hub  # type: ignore[attr-defined]  # noqa: B018
    for name in ("FastSHAP", "Surrogate"):
        with pytest.raises(AttributeError, match=r"SCANVI\.predict\(ig_interpretability=True\)"):
            getattr(scvi.utils, name)
    assert scvi.external.POISSONVI is scvi.model.POISSONVI
    assert scvi.external.SOLO is scvi.model.SOLO


def test_settings_of_scvi_tools_can_be_set(caplog: pytest.LogCaptureFixture) -> None:
    settings = type(scvi.settings)()
    for names in VERSIONS.values():
        for name in names["settings"]:
            getattr(settings, name)
    with caplog.at_level(logging.INFO, "cellvae"):
        settings.dl_num_workers = 3
    assert settings.dl_num_workers == 3
    assert "settings.dl_num_workers has no effect here" in caplog.text


@pytest.mark.trains
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
