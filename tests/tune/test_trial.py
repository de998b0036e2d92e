"""A trial without Ray: what it reports and saves, how it is stopped, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellvae.errors import TrainingError
from cellvae.model import SCVI
from cellvae.tune.search_cells import SharedCells
from cellvae.tune.search_result import FinishedTrial, table_of_trials
from cellvae.tune.trial import TrialTask, train_trial

pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("settings_put_back")]

FIXED = {
    "model_params": {"n_hidden": 8},
    "train_params": {
        "max_epochs": 4,
        "batch_size": 32,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "plan_kwargs": {"eps": 0.01},
    },
}
CONFIG = {"model_params": {"n_latent": 3}, "train_params": {"plan_kwargs": {"lr": 0.01}}}


def task_in(folder: Path) -> TrialTask:
    return TrialTask(
        model_class=SCVI,
        metrics=("elbo_validation", "elbo_train"),
        mode="min",
        seed=0,
        n_threads=1,
        folder=folder,
        fixed=FIXED,
    )


def test_a_trial_reports_every_epoch_and_saves_its_best_model(
    adata: AnnData, tmp_path: Path
) -> None:
    SCVI.setup_anndata(adata, batch_key="batch")
    cells = SharedCells.of(adata, SCVI, tmp_path)
    seen: list[dict[str, Any]] = []
    train_trial(CONFIG, task_in(tmp_path / "trials"), cells, "a", seen.append)
    assert [row["epoch"] for row in seen] == [1, 2, 3, 4]
    model = SCVI.load(tmp_path / "trials" / "a" / "best" / "model", adata)
    best = int(np.argmin([row["elbo_validation"] for row in seen]))
    assert model.history.epochs[-1] == best and model.config.n_latent == 3
    assert model.history["elbo_validation"].to_numpy()[best] == seen[best]["elbo_validation"]

    # Killed after two epochs, the trial goes on with the third, and ends as without the kill.
    class Killed(BaseException):
        pass

    again: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        again.append(row)
        if row["epoch"] == 3 and len(again) == 3:
            raise Killed

    with pytest.raises(Killed):
        train_trial(CONFIG, task_in(tmp_path / "trials"), cells, "b", report)
    train_trial(CONFIG, task_in(tmp_path / "trials"), cells, "b", report)
    assert [row["epoch"] for row in again] == [1, 2, 3, 3, 4]
    assert again[:3] + again[4:] == seen and again[2] == again[3]

    # A scheduler ends a trial by an exception in its report.
    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise SystemExit(0)

    train_trial(CONFIG, task_in(tmp_path / "trials"), cells, "c", stop)
    report_of_c = json.loads((tmp_path / "trials" / "c" / "trial.json").read_text())
    assert (report_of_c["status"], report_of_c["epochs"]) == ("stopped_early", 2)

    def trial(name: str, rows: list[dict[str, Any]], error: Exception | None) -> FinishedTrial:
        table = pd.DataFrame(rows, columns=["epoch", "elbo_validation", "elbo_train"], dtype=float)
        return FinishedTrial(name=name, config=CONFIG, metrics=table, error=error)

    failed = trial("d", [], ValueError("two\nOut of memory"))
    trials = [
        failed,
        trial("c", [{"epoch": 1, "elbo_validation": 1e6}], None),
        trial("a", seen, None),
    ]
    table = table_of_trials(trials, "elbo_validation", "min", tmp_path)
    assert [*table.index] == ["a", "c", "d"]
    assert [*table["status"]] == ["completed", "stopped", "failed"]
    assert table["best_epoch"]["a"] == best + 1 and table["epochs"]["a"] == 4
    assert table["plan_kwargs/lr"]["a"] == 0.01 and table["error"]["d"] == "Out of memory"
    with pytest.raises(TrainingError, match="Out of memory"):
        table_of_trials([failed], "elbo_validation", "min", tmp_path)
