"""`cellvae train`: results, flags, and what is said about bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellvae
from cellvae.cli.cells import describe_data
from cellvae.data import open_cells
from cellvae.errors import TrainingError
from cellvae.model import SCVI
from cellvae.settings import settings

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.trains
def test_a_run_writes_model_latent_curves_and_report(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "run"
    ended = program(
        "train", counts, "--out", out, "--batch-key", "batch", "--n-latent", 4, "--seed", 3, *quick
    )
    assert ended.code == 0, ended.err
    names = {path.name for path in out.iterdir()}
    assert names == {"model", "latent.h5ad", "training-curves.png", "report.json", "job.json"}
    cells = anndata.read_h5ad(out / "latent.h5ad")
    assert cells.obsm["X_scVI"].shape == (80, 4)
    model = cellvae.load(out / "model", cells)
    assert np.array_equal(model.get_latent_representation(), cells.obsm["X_scVI"])
    assert model.registration.keys.batch_key == "batch"
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "completed"
    assert (report["epochs"], report["max_epochs"], report["seed"]) == (2, 2, 3)
    assert (out / "training-curves.png").read_bytes().startswith(PNG)
    for text in ("2 of 2", "model/", "latent.h5ad", "report.json", str(out)):
        assert text in ended.out


@pytest.mark.trains
def test_a_run_gives_what_the_same_calls_give(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    train_kwargs = ("--seed", 5, "--layer", "raw", "--continuous-covariate-keys", "age")
    assert program("train", counts, "--out", tmp_path, *train_kwargs, *quick).code == 0
    adata = anndata.read_h5ad(counts)
    settings.seed = 5
    SCVI.setup_anndata(adata, layer="raw", continuous_covariate_keys=["age"])
    model = SCVI(adata, n_hidden=8)
    model.train(max_epochs=2, enable_progress_bar=False)
    latent = anndata.read_h5ad(tmp_path / "latent.h5ad").obsm["X_scVI"]
    assert np.array_equal(model.get_latent_representation(), latent)


@pytest.mark.trains
def test_early_stopping_keeps_checkpoints_and_the_best_model(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    # Any flag of early stopping asks for it, as the keyword of train() does.
    ended = program("train", counts, "--out", tmp_path, "--early-stopping-patience", 9, *quick)
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["monitor"] == "elbo_validation"
    (checkpoint,) = (p for p in (tmp_path / "checkpoints").iterdir() if p.is_dir())
    assert Path(report["best_path"]) == checkpoint
    best = cellvae.load(checkpoint)
    assert len(best.history.epochs) == report["best_epoch"] + 1
    assert report["restored_epoch"] == report["best_epoch"]
    assert "brought back" in ended.out


@pytest.mark.parametrize(
    ("train_kwargs", "message"),
    [
        (("--batch-key", "bach"), "'bach'. Did you mean 'batch'?"),
        (("--layer", "rwa"), "'rwa'. Did you mean 'raw'?"),
        (
            ("--color", "label"),
            "--color to be a column of obs; got 'label'. Did you mean 'labels'?",
        ),
        (("--gene-likelihood", "nbb"), "Did you mean 'nb'?"),
        (("--model", "scvi"), "--model to be one of SCVI"),
        (("--n-latent", "0"), "n_latent to be at least 1"),
        (("--lr", "-1"), "lr to be at least 0"),
        (("--train-size", "1.5"), "train_size to be above 0 and at most 1"),
        (("--seed", "-1"), "seed to be at least 0"),
        (("--early-stopping-monitor", "elbo_validatoin"), "Did you mean 'elbo_validation'?"),
        (("--accelerator", "qpu"), "qpu"),
        (("--unlabeled-category", "u"), "no --unlabeled-category; SCANVI, TOTALANVI have."),
        (("--n-latent", "many"), "n_latent to be a whole number; got 'many'"),
        (("--batch-kye", "batch"), "SCVI has no --batch-kye. Did you mean '--batch-key'?"),
        (
            ("--n-layers-encoder", "2"),
            "no --n-layers-encoder; PEAKVI, TOTALVI, TOTALANVI, MULTIVI have.",
        ),
        (("--n-latent",), "--n-latent"),
        (("--seed", "x"), "--seed"),
        (("--reduce-lr-on-plateau", "--lr-patience", "-1"), "lr_patience to be at least 0"),
        (("--batch-embedding-kwargs", "{"), "batch_embedding_kwargs to be"),
        (("--model", "SCANVI"), "SCANVI needs --labels-key and --unlabeled-category"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    train_kwargs: tuple[str, ...],
    message: str,
    program: Callable[..., Any],
    counts: Path,
    quick: tuple[str, ...],
    tmp_path: Path,
) -> None:
    ended = program("train", counts, "--out", tmp_path / "run", *quick, *train_kwargs)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("cellvae: ")
    assert message in line
    assert not (tmp_path / "run" / "model").exists()


def test_a_missing_file_is_one_line(program: Callable[..., Any], tmp_path: Path) -> None:
    ended = program("train", tmp_path / "missing.h5ad", "--out", tmp_path / "run")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"cellvae: No such file: '{tmp_path / 'missing.h5ad'}'.\n"


@pytest.mark.parametrize("name", ["cells.csv", "cells.h5ad", "folder.h5ad"])
def test_a_file_of_another_kind_is_one_line(
    name: str, program: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.mkdir() if name.startswith("folder") else path.write_text("1,2\n")
    ended = program("train", path, "--out", tmp_path / "run")
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert str(path) in line


@pytest.mark.trains
def test_a_model_that_is_there_is_replaced_only_on_demand(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "latent.h5ad").write_text("older")
    ended = program("train", counts, "--out", tmp_path, *quick)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "already contains a model" in line
    assert "Give --overwrite" in line
    assert (tmp_path / "latent.h5ad").read_text() == "older"
    (tmp_path / "notes.txt").write_text("mine")
    again = program("train", counts, "--out", tmp_path, "--overwrite", "--n-latent", 2, *quick)
    assert again.code == 0, again.err
    assert anndata.read_h5ad(tmp_path / "latent.h5ad").obsm["X_scVI"].shape == (80, 2)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_results_need_a_folder(program: Callable[..., Any], counts: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    ended = program("train", counts, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "Expected a folder for --out" in ended.err


def test_training_that_fails_is_one_line_and_exit_code_1(
    program: Callable[..., Any],
    counts: Path,
    quick: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def failing(self: SCVI, **train_kwargs: Any) -> None:
        raise TrainingError("A loss was not finite.")

    monkeypatch.setattr(SCVI, "train", failing)
    ended = program("train", counts, "--out", tmp_path, *quick)
    assert ended.code == 1
    assert ended.err == "cellvae: training failed: A loss was not finite.\n"
    assert not (tmp_path / "model").exists()


@pytest.mark.trains
def test_labels_are_told(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    label = ("--labels-key", "labels", "--unlabeled-category", "label_1")
    ended = program("train", counts, "--out", tmp_path, "--model", "SCANVI", *label, *quick)
    assert ended.code == 0, ended.err
    cells = anndata.read_h5ad(tmp_path / "latent.h5ad")
    assert "X_scANVI" in cells.obsm
    assert set(cells.obs["C_scANVI"]) <= {"label_0", "label_2"}
    assert (cells.obs["C_scANVI"] == cellvae.load(tmp_path / "model", cells).predict()).all()


@pytest.mark.trains
def test_a_run_that_was_cut_off_goes_on(
    program: Callable[..., Any],
    counts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cellvae.train.loop.training_plan import TrainingPlan

    monkeypatch.setattr("cellvae.cli.job.STATE_INTERVAL_MINUTES", 0)
    step = TrainingPlan.training_step

    def failing(plan: TrainingPlan, batch: Any, batch_idx: int) -> Any:
        if plan.epoch == 2:
            raise OSError("no space left on device")
        return step(plan, batch, batch_idx)

    train_kwargs = ("train", counts, "--max-epochs", 4, "--n-hidden", 8, "--no-umap")
    assert program(*train_kwargs, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patched:
        patched.setattr(TrainingPlan, "training_step", failing)
        ended = program(*train_kwargs, "--out", tmp_path / "cut")
    assert ended.code != 0
    assert "no space left" in ended.err
    assert (tmp_path / "cut" / "state").is_dir()
    other = program(*train_kwargs, "--out", tmp_path / "cut", "--lr", "0.01")
    assert other.code == 2
    assert "it had no --lr, now there is --lr 0.01" in other.err
    assert program(*train_kwargs, "--out", tmp_path / "cut").code == 0
    assert not (tmp_path / "cut" / "state").exists()
    report = json.loads((tmp_path / "cut" / "report.json").read_text())
    assert report["resumed_epoch"] == 2
    latents = [
        anndata.read_h5ad(tmp_path / name / "latent.h5ad").obsm["X_scVI"]
        for name in ("whole", "cut")
    ]
    assert np.array_equal(*latents)


@pytest.mark.trains
def test_cells_of_a_pattern_stay_in_their_files(
    program: Callable[..., Any], counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    adata = anndata.read_h5ad(counts)
    for name, part in (("a", adata[:50]), ("b", adata[50:])):
        part.copy().write_h5ad(tmp_path / f"{name}.h5ad")
    pattern = tmp_path / "*.h5ad"
    flags = ("--max-epochs", 2, "--no-umap", "--batch-key", "batch", "--color", "file")
    ended = program("train", pattern, "--out", tmp_path / "run", *flags)
    assert ended.code == 0, ended.err
    written = anndata.read_h5ad(tmp_path / "run" / "latent.h5ad")
    assert [*written.obs_names] == [*adata.obs_names]
    assert written.obsm["X_scVI"].shape == (80, 10)
    assert written.X is None
    cells = open_cells(pattern)
    model = cellvae.load(tmp_path / "run" / "model", cells)
    np.testing.assert_allclose(
        model.get_latent_representation(), written.obsm["X_scVI"], rtol=1e-4, atol=1e-5
    )
    again = program("train", pattern, "--out", tmp_path / "run", *flags)
    assert again.code == 0, again.err
    missing = program("train", tmp_path / "*.loom", "--out", tmp_path / "run2", *flags)
    assert missing.code == 2
    assert "No such file" in missing.err


def test_digests_of_counts_in_files_are_those_of_memory(counts: Path) -> None:
    in_files, in_memory = open_cells(counts), anndata.read_h5ad(counts)
    setup = {"layer": "raw", "batch_key": "batch"}
    assert describe_data(in_files, setup) == describe_data(in_memory, setup)
