"""`cellvae train`: results, flags, and what is said about bad input."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellvae
from cellvae.cli import train as command
from cellvae.cli.job import Job
from cellvae.errors import TrainingError, UnknownOptionError
from cellvae.model import MODELS, SCANVI, SCVI
from cellvae.settings import settings
from cellvae.train.arguments import parse
from cellvae.train.options import EarlyStoppingOptions, LoaderOptions, OptimizerOptions

# Flags that are about the program's own files, figures and messages.
OWN = {"counts", "out", "model", "seed", "color", "umap", "overwrite", "resume"}
PNG = b"\x89PNG\r\n\x1a\n"


# Values for the words of train() that take neither any text nor any number.
GOOD = {
    "accelerator": "cpu",
    "devices": "1",
    "train_size": 0.5,
    "validation_size": 0.25,
    "early_stopping_mode": "min",
    "on_nan": "raise",
}


def flags() -> dict[str, tuple[Any, str]]:
    """Type and help of every flag of the command, by the name of its keyword."""
    hints = typing.get_type_hints(command.train, include_extras=True)
    hints.pop("return")
    return {n: (hint.__origin__, str(hint.__metadata__[0].help)) for n, hint in hints.items()}


def spelling(name: str) -> str:
    """Keyword as it is typed."""
    return f"--{name.replace('_', '-')}"


def value_for(hint: Any) -> Any:
    """Value that a flag of this type takes."""
    kinds = {bool: True, int: 1, float: 0.5, str: "text", list[str]: ["text"]}
    return next(value for kind, value in kinds.items() if kind in (hint, *typing.get_args(hint)))


def test_a_run_writes_model_latent_curves_and_report(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "run"
    ended = program(
        "train", counts, "--out", out, "--batch-key", "batch", "--n-latent", 4, "--seed", 3, *quick
    )
    assert ended.code == 0, ended.err
    names = {path.name for path in out.iterdir()}
    assert names == {"model", "latent.h5ad", "training-curves.png", "report.json"}
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


def test_a_run_gives_what_the_same_calls_give(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("--seed", 5, "--layer", "raw", "--continuous-covariate-keys", "age")
    assert program("train", counts, "--out", tmp_path, *words, *quick).code == 0
    adata = anndata.read_h5ad(counts)
    settings.seed = 5
    SCVI.setup_anndata(adata, layer="raw", continuous_covariate_keys=["age"])
    model = SCVI(adata, n_hidden=8)
    model.train(max_epochs=2, enable_progress_bar=False)
    latent = anndata.read_h5ad(tmp_path / "latent.h5ad").obsm["X_scVI"]
    assert np.array_equal(model.get_latent_representation(), latent)


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


def test_every_flag_reaches_the_python_call_that_has_the_keyword(
    program: Callable[..., Any], counts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(command, "run_job", lambda adata, job, out: jobs.append(job))
    monkeypatch.setattr(command, "print_summary", lambda model, out: None)
    given = {name: value_for(hint) for name, (hint, _) in flags().items() if name not in OWN}
    words: list[object] = []
    for name, value in given.items():
        words.append(spelling(name))
        words += [] if value is True else value if isinstance(value, list) else [value]
    ended = program("train", counts, "--out", tmp_path, "--model", "SCVI", *words)
    assert ended.code == 0, ended.err
    (job,) = jobs
    train = dict(job.train)
    plan = train.pop("plan_kwargs")
    assert {**job.setup, **job.config, **train, **plan} == given
    assert set(job.setup) == set(inspect.signature(SCANVI.setup_anndata).parameters) - {"adata"}
    assert set(job.config) <= {field.name for field in dataclasses.fields(SCVI.Config)}
    known = set(inspect.signature(SCVI.train).parameters)
    assert {w for w in train if not w.startswith(("early_", "enable_", "check_"))} <= known
    values = {word: GOOD.get(word, value) for word, value in train.items()}
    parse({**values, "plan_kwargs": plan})
    with pytest.raises(UnknownOptionError, match="'lrr'"):
        parse({**values, "plan_kwargs": {"lrr": 1}})


def test_every_set_up_word_is_a_flag() -> None:
    for kind in MODELS.values():
        setup = set(inspect.signature(kind.setup_anndata).parameters) - {"adata"}
        assert setup <= set(flags()), kind


def test_help_lists_every_flag(program: Callable[..., Any]) -> None:
    ended = program("train", "--help")
    assert ended.code == 0
    for name, (hint, _) in flags().items():
        if name != "counts":
            assert spelling(name) in ended.out
        if bool in (hint, *typing.get_args(hint)) and name != "overwrite":
            assert spelling(f"no_{name}") in ended.out
    for panel in ("Data", "Network", "Training", "Early stopping", "Output"):
        assert panel in ended.out
    assert "cellvae train counts.h5ad --out run/" in ended.out


def test_help_says_the_defaults_that_hold() -> None:
    sources = (SCVI.Config, OptimizerOptions, LoaderOptions, EarlyStoppingOptions)
    defaults = {f.name: f.default for cls in sources for f in dataclasses.fields(cls)}
    checked = 0
    for name, (_, text) in flags().items():
        default = defaults.get(name, defaults.get(name.removeprefix("early_stopping_")))
        text = text.rstrip(".")
        if name in OWN or isinstance(default, bool) or not text.endswith(")"):
            continue
        said = text[text.rindex("(") + 1 : -1]
        if isinstance(default, int | float):
            assert float(said) == default, name
        elif isinstance(default, str):
            assert said == default, name
        else:
            continue
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize(
    ("words", "message"),
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
        (("--lr", "-1"), "lr to be above 0"),
        (("--train-size", "1.5"), "train_size to be above 0 and at most 1"),
        (("--seed", "-1"), "seed to be at least 0"),
        (("--early-stopping-monitor", "elbo_validatoin"), "Did you mean 'elbo_validation'?"),
        (("--accelerator", "qpu"), "qpu"),
        (("--unlabeled-category", "u"), "SCVI has no --unlabeled-category"),
        (("--model", "SCANVI"), "SCANVI needs --labels-key and --unlabeled-category"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: tuple[str, ...],
    message: str,
    program: Callable[..., Any],
    counts: Path,
    quick: tuple[str, ...],
    tmp_path: Path,
) -> None:
    ended = program("train", counts, "--out", tmp_path / "run", *quick, *words)
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


def test_a_model_that_is_there_is_replaced_only_on_demand(
    program: Callable[..., Any], counts: Path, quick: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "latent.h5ad").write_text("older")
    ended = program("train", counts, "--out", tmp_path, *quick)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "holds a model already. Give --overwrite" in line
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
    def failing(self: SCVI, **words: Any) -> None:
        raise TrainingError("A loss was not finite.")

    monkeypatch.setattr(SCVI, "train", failing)
    ended = program("train", counts, "--out", tmp_path, *quick)
    assert ended.code == 1
    assert ended.err == "cellvae: training failed: A loss was not finite.\n"
    assert not (tmp_path / "model").exists()


def test_flags_that_do_not_exist_are_refused_with_the_closest(
    program: Callable[..., Any], counts: Path, tmp_path: Path
) -> None:
    ended = program("train", counts, "--out", tmp_path, "--batch-kye", "batch")
    assert ended.code == 2
    assert "--batch-key" in ended.err


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


def test_every_model_of_the_table_can_be_named() -> None:
    _, text = flags()["model"]
    assert all(name in text for name in MODELS)


def test_a_run_that_was_cut_off_goes_on(
    program: Callable[..., Any],
    counts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cellvae.train.plan import Plan

    step = Plan.training_step

    def failing(plan: Plan, batch: Any, batch_idx: int) -> Any:
        if plan.epoch == 2:
            raise OSError("no space left on device")
        return step(plan, batch, batch_idx)

    words = ("train", counts, "--max-epochs", 4, "--n-hidden", 8, "--no-umap", "--resume")
    assert program(*words, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patched:
        patched.setattr(Plan, "training_step", failing)
        ended = program(*words, "--out", tmp_path / "cut")
    assert ended.code != 0
    assert "no space left" in ended.err
    assert program(*words, "--out", tmp_path / "cut").code == 0
    report = json.loads((tmp_path / "cut" / "report.json").read_text())
    assert report["resumed_epoch"] == 2
    latents = [
        anndata.read_h5ad(tmp_path / name / "latent.h5ad").obsm["X_scVI"]
        for name in ("whole", "cut")
    ]
    assert np.array_equal(*latents)
