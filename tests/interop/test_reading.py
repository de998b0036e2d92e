"""Models that scvi-tools wrote: the same answers here, and nothing in a file that runs."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.errors import DataMismatchError, FileFormatError, InvalidOptionError
from cellvae.model import MODELS, SCANVI, SCVI
from cellvae.scvi.files import read_scvi_model

DATA = Path(__file__).with_name("data")
KINDS = {
    "scvi": "SCVI",
    "scvi_covariates": "SCVI",
    "scvi_size": "SCVI",
    "scvi_embedding": "SCVI",
    "scanvi": "SCANVI",
    "linear": "LinearSCVI",
    "peakvi": "PEAKVI",
    "legacy": "SCVI",
    "legacy_covariates": "SCVI",
    "legacy_scanvi": "SCANVI",
}
OLD = [name for name in KINDS if name.startswith("legacy")]


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return anndata.read_h5ad(DATA / "cells.h5ad")


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(DATA / "answers.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", KINDS)
def test_latents_are_those_of_scvi_tools(name: str, cells: AnnData, answers: Any) -> None:
    models = [MODELS[KINDS[name]].load(DATA / name, cells)]
    if name not in OLD:
        models.append(cellvae.load(DATA / name, cells))
    for model in models:
        assert type(model).__name__ == KINDS[name]
        assert model.is_trained
        found = np.asarray(model.get_latent_representation())
        np.testing.assert_allclose(found, answers[name], atol=1e-5)
        assert len(model.train_indices) + len(model.validation_indices) == cells.n_obs


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("scvi")])
def test_posteriors_and_expression_are_those_of_scvi_tools(
    name: str, cells: AnnData, answers: Any
) -> None:
    model = SCVI.load(DATA / name, cells)
    mean, variance = model.get_latent_representation(return_dist=True)
    np.testing.assert_allclose(mean, answers[f"{name} parameters"][0], atol=1e-5)
    np.testing.assert_allclose(variance, answers[f"{name} parameters"][1], atol=1e-5)
    if f"{name} expression" not in answers:
        return
    torch.manual_seed(0)
    found = model.get_normalized_expression(n_samples=200, return_numpy=True)
    np.testing.assert_allclose(found, answers[f"{name} expression"], rtol=0.15, atol=0.01)


@pytest.mark.parametrize("name", ["scvi", "scvi_covariates", "scvi_size", "linear"])
def test_bounds_are_those_of_scvi_tools(name: str, cells: AnnData, answers: Any) -> None:
    model: Any = cellvae.load(DATA / name, cells)
    torch.manual_seed(0)
    draws = [model.get_elbo() for _ in range(200)]
    mean, deviation = answers[f"{name} elbo"]
    assert np.std(draws) == pytest.approx(deviation, rel=0.3)
    assert abs(np.mean(draws) - mean) < 5 * deviation * np.sqrt(2 / 200)


def test_probabilities_of_labels_are_those_of_scvi_tools(cells: AnnData, answers: Any) -> None:
    model = SCANVI.load(DATA / "scanvi", cells)
    assert model.labels == ("label_0", "label_2") and model.unlabeled_category == "label_1"
    np.testing.assert_allclose(model.predict(soft=True), answers["scanvi probabilities"], atol=1e-5)


def test_a_classifier_of_probabilities_is_that_of_scvi_tools(cells: AnnData) -> None:
    pytest.importorskip("captum")
    with np.load(DATA / "scanvi_probabilities.npz") as theirs:
        model = SCANVI.load(DATA / "scanvi_probabilities", cells)
        assert model.config.classifier_parameters == {"logits": False}
        assert not model.module.gives_logits
        np.testing.assert_allclose(model.get_latent_representation(), theirs["latent"], atol=1e-5)
        found, table = model.predict(soft=True, ig_interpretability=True)
        np.testing.assert_allclose(found, theirs["probabilities"], atol=1e-5)
        assert table.columns.tolist() == theirs["columns"].tolist()
        by_gene = table.set_index("feature").loc[cells.var_names]
        np.testing.assert_allclose(
            by_gene[["attribution_mean", "attribution_std"]], theirs["attributions"], atol=1e-6
        )
        assert (by_gene["feature_idx"] == np.arange(cells.n_vars)).all()


def test_classifiers_before_1_1_gave_probabilities(cells: AnnData) -> None:
    model = SCANVI.load(DATA / "legacy_scanvi", cells)
    assert model.config.classifier_parameters == {"logits": False}


def test_topics_are_those_of_scvi_tools(cells: AnnData, answers: Any) -> None:
    model = cellvae.load(DATA / "lda", cells)
    np.testing.assert_allclose(
        model.get_feature_by_topic(20_000), answers["lda features"], rtol=0.05, atol=1e-3
    )


@pytest.mark.trains
def test_models_can_be_trained_further_and_saved_as_ours(cells: AnnData, tmp_path: Path) -> None:
    model = SCVI.load(DATA / "scvi", cells)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, seed=0)
    model.save(tmp_path / "ours")
    again = cellvae.load(tmp_path / "ours", cells)
    found = again.get_latent_representation()
    np.testing.assert_array_equal(found, model.get_latent_representation())


def test_cells_are_checked_as_ever(cells: AnnData) -> None:
    odd = cells.copy()
    odd.obs["batch"] = "batch_9"
    with pytest.raises(DataMismatchError, match="batch_9"):
        SCVI.load(DATA / "scvi", odd)
    assert SCVI.load(DATA / "scvi").adata is None


def test_old_files_of_others_are_read(shared_data: Path) -> None:
    folder = shared_data / "scvi_models"
    scvi = SCVI.load(folder / "0150_scvi")
    assert scvi.registration.n_genes == 100 and scvi.is_trained
    scanvi = SCANVI.load(folder / "pre_logits_fix_scanvi")
    assert scanvi.labels == ("label_2", "label_1") and scanvi.unlabeled_category == "label_0"
    np.testing.assert_allclose(scanvi.predict(soft=True).sum(axis=1), 1, rtol=1e-5)
    totalvi = cellvae.load(folder / "0150_totalvi")
    assert totalvi.registration.n_genes == 100 and totalvi.is_trained
    assert totalvi.registration.n_features("proteins") == totalvi.module.sizes.n_proteins


def test_another_class_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"Expected a saved SCVI .* got a SCANVI of scvi"):
        SCVI.load(DATA / "scanvi")


@pytest.mark.parametrize("name", OLD)
def test_three_files_of_old_versions_are_converted(
    name: str, cells: AnnData, answers: Any, tmp_path: Path
) -> None:
    kind: Any = MODELS[KINDS[name]]
    kind.convert_legacy_save(DATA / name, tmp_path / "new")
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) != []
    model = cellvae.load(tmp_path / "new", cells)
    np.testing.assert_allclose(model.get_latent_representation(), answers[name], atol=1e-5)
    with pytest.raises(InvalidOptionError, match="overwrite"):
        kind.convert_legacy_save(DATA / name, tmp_path / "new")
    kind.convert_legacy_save(DATA / name, tmp_path / "new", overwrite=True)


def test_old_files_that_are_not_all_there_or_not_theirs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"of which class it is.*SCVI.load"):
        cellvae.load(DATA / "legacy")
    folder = tmp_path / "old"
    shutil.copytree(DATA / "legacy", folder)
    (folder / "attr.pkl").write_bytes(pickle.dumps(Runs(os.system, "touch ran")))
    with pytest.raises(FileFormatError, match=r"asks for 'posix.system'"):
        SCVI.load(folder)
    (folder / "attr.pkl").write_bytes(pickle.dumps({"is_trained_": True}))
    with pytest.raises(FileFormatError, match="scvi_setup_dict_"):
        SCVI.load(folder)
    (folder / "attr.pkl").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"Cannot read .*attr\.pkl"):
        SCVI.load(folder)
    (folder / "var_names.csv").unlink()
    with pytest.raises(FileFormatError, match=r"var_names\.csv is not there"):
        SCVI.load(folder)


@pytest.mark.parametrize("name", ["minified", "minified_with_counts"])
def test_minified_models_are_read_with_their_cells(name: str, answers: Any, tmp_path: Path) -> None:
    model: Any = cellvae.load(DATA / name)
    with_counts = name.endswith("counts")
    kind = "latent_posterior_parameters" + "_with_counts" * with_counts
    assert model.minified_data_type == kind
    np.testing.assert_array_equal(model.get_latent_representation(), answers[name])
    torch.manual_seed(0)
    found = model.get_normalized_expression(n_samples=200, return_numpy=True)
    np.testing.assert_allclose(found, answers[f"{name} expression"], rtol=0.15, atol=0.01)
    if with_counts:
        assert np.isfinite(model.get_elbo())
    else:
        with pytest.raises(DataMismatchError, match="with their counts"):
            model.get_elbo()
    with pytest.raises(DataMismatchError, match="not minified to train"):
        model.train(max_epochs=1)
    model.save(tmp_path / "ours", save_anndata=True)
    again: Any = cellvae.load(tmp_path / "ours")
    np.testing.assert_array_equal(again.get_latent_representation(), answers[name])


def test_cells_that_older_versions_minified_are_understood(answers: Any) -> None:
    cells = anndata.read_h5ad(DATA / "minified" / "adata.h5ad")
    for part in ("qzm", "qzv"):
        cells.obsm[f"_scvi_latent_{part}"] = cells.obsm.pop(f"scvi_latent_{part}")
    cells.obs["_scvi_observed_lib_size"] = cells.obs.pop("observed_lib_size")
    model = SCVI.load(DATA / "minified", cells)
    np.testing.assert_array_equal(model.get_latent_representation(), answers["minified"])
    del cells.obsm["_scvi_latent_qzv"]
    with pytest.raises(DataMismatchError, match="_scvi_latent_qzv"):
        SCVI.load(DATA / "minified", cells)


@pytest.mark.trains
def test_a_reference_of_scvi_tools_is_mapped_onto(cells: AnnData, tmp_path: Path) -> None:
    query = cells[:30].copy()
    query.obs["batch"] = "new"
    for name in ("scvi", "scvi_covariates", "legacy", "minified"):
        reference = SCVI.load(DATA / name)
        model = SCVI.load_query_data(query, DATA / name)
        assert model.registration.categories("batch")[-1] == "new"
        model.train(
            max_epochs=2, accelerator="cpu", enable_progress_bar=False, seed=0,
            plan_kwargs={"weight_decay": 0.1, "lr": 0.05},
        )  # fmt: skip
        old, new = reference.module.state_dict(), model.module.state_dict()
        for weight in model.module.frozen_weights.parameters:
            assert torch.equal(old[weight], new[weight]), weight
        for weight, part in model.module.frozen_weights.slices.items():
            own = torch.cat([*part.select(new[weight])], dim=part.dim)
            assert torch.equal(own, old[weight]), weight
    labelled = SCANVI.load_query_data(query, DATA / "scanvi")
    labelled.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, seed=0)
    assert set(labelled.predict()) <= {"label_0", "label_2"}


def planted(folder: Path, content: Any) -> Path:
    """Copy of a model whose pickle is another."""
    folder.mkdir()
    with (
        zipfile.ZipFile(DATA / "scvi" / "model.pt") as source,
        zipfile.ZipFile(folder / "model.pt", "w") as target,
    ):
        for member in source.infolist():
            data = source.read(member)
            if member.filename.endswith("data.pkl"):
                data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
            target.writestr(member.filename, data)
    return folder


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "argument"),
    [(os.system, "touch {}"), (eval, "open({!r}, 'w')"), (exec, "open({!r}, 'w')"), (open, "{}")],
)
def test_nothing_in_a_file_runs(function: Any, argument: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    kwargs = (argument.format(str(mark)), *(("w",) if function is open else ()))
    folder = planted(tmp_path / "model", {"attr_dict": Runs(function, *kwargs)})
    with pytest.raises(FileFormatError, match="Nothing was run"):
        SCVI.load(folder)
    assert not mark.exists()


def array(kind: str, shape: Any, content: Any) -> bytes:
    """Pickle of an array with this description."""
    return pickle.dumps({"var_names": Described(kind, shape, content)}, 2)


class Described:
    """Array that is pickled with a description of its own."""

    def __init__(self, kind: str, shape: Any, content: Any) -> None:
        self.parts = (kind, shape, content)

    def __reduce__(self) -> Any:
        kind, shape, content = self.parts
        make, arguments = np.zeros(0).__reduce__()[:2]
        return make, arguments, (1, shape, np.dtype(kind), False, content)


@pytest.mark.parametrize(
    "content",
    [
        array("f8", (2**40,), b"12345678"),
        array("f8", (-1,), b""),
        array("V8", (1,), b"12345678"),
        array("O", (3,), [1]),
        array("M8", (1,), b"12345678"),
        array("M8[25s]", (1,), b"12345678"),
        array("m8[D]", (1,), b"12345678"),
        pickle.dumps({"a": Runs(bytes, 2**40)}, 2),
        b"cnumpy\ndtype\n}Vis_object\nI1\nsb.",
        b"c_codecs\nencode\n}Vmake\nI1\nsb.",
        b"not a pickle",
        pickle.dumps([1, 2], 2),
        pickle.dumps({}, 2),
    ],
)
def test_damaged_and_hostile_files_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError):
        read_scvi_model(planted(tmp_path / "model", content))


def test_files_that_swell_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"0" * 10_000_000)
    with pytest.raises(FileFormatError, match="compressed"):
        read_scvi_model(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(FileFormatError, match=r"torch\.save"):
        read_scvi_model(tmp_path)


def test_weights_of_other_shapes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cellvae.scvi.import_model as foreign

    real = foreign.read_scvi_model

    def changed(*arguments: Any, **kwargs: Any) -> Any:
        found = real(*arguments, **kwargs)
        found.weights["px_r"] = torch.zeros(3)  # type: ignore[index]
        return found

    shutil.copytree(DATA / "scvi", tmp_path / "model")
    monkeypatch.setattr(foreign, "read_scvi_model", changed)
    with pytest.raises(FileFormatError, match="'px_r' is"):
        SCVI.load(tmp_path / "model")
