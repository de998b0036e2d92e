"""The folder of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.core.log import logger
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train import EarlyStopping
from cellvae.train.callbacks.monitoring.run_logger import RunLogger, format_duration
from cellvae.train.callbacks.serialisation import rebuild_callback

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "batch_size": 16}


@pytest.fixture
def model() -> SCVI:
    adata = AnnData(np.random.default_rng(0).poisson(3.0, (60, 10)).astype(np.float32))
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


class Fail(pl.Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise OSError("disk on fire")


def test_a_folder_tells_the_whole_run(model: SCVI, tmp_path: Path) -> None:
    handlers = list(logger.handlers)
    model.train(3, seed=5, early_stopping=True, run_dir=tmp_path / "run", **WORDS)
    assert logger.handlers == handlers
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {
        "info.log", "config.json", "callbacks.json", "model.txt", "history.csv", "report.txt",
    }  # fmt: skip
    lines = (folder / "info.log").read_text().splitlines()
    told = [line.split(" INFO ")[1] for line in lines]
    assert told[0] == "Training began: epoch 0"
    assert [t for t in told if t.startswith("Completed")] == [
        f"Completed: epoch {e}" for e in range(3)
    ]
    assert told[-1].startswith("Training ended: all epochs done. It took ")
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["seed"] == 5
    assert config["options"]["early_stopping"]["patience"] == 45
    assert config["model"]["config"]["n_hidden"] == 8
    assert set(config["versions"]) == {"torch", "lightning", "anndata", "numpy"}
    table = pd.read_csv(folder / "history.csv", index_col="epoch")
    assert table["elbo_train"].tolist() == pytest.approx(model.history.table["elbo_train"].tolist())
    assert (folder / "report.txt").read_text() == f"completed\n{model.training_report}\n"
    assert "SCVIModule" in (folder / "model.txt").read_text()
    made = json.loads((folder / "callbacks.json").read_text())
    (stop,) = [rebuild_callback(values) for values in made if values["class"] == "EarlyStopping"]
    assert isinstance(stop, EarlyStopping)
    assert (stop.patience, stop.monitor) == (45, "elbo_validation")


def test_an_error_leaves_its_traceback_and_a_run_that_goes_on_adds_to_it(
    model: SCVI, tmp_path: Path
) -> None:
    handlers = list(logger.handlers)
    with pytest.raises(OSError, match="disk on fire"):
        model.train(4, seed=5, run_dir=tmp_path, callbacks=Fail(2), **WORDS)
    assert logger.handlers == handlers
    error = (tmp_path / "error.log").read_text()
    assert "Traceback" in error
    assert "OSError: disk on fire" in error
    assert (tmp_path / "report.txt").read_text().startswith("failed\n")
    assert len(pd.read_csv(tmp_path / "history.csv")) == 2
    torch.manual_seed(0)
    again = SCVI(model.adata, n_hidden=8, n_latent=2)
    again.train(4, seed=5, run_dir=tmp_path, resume="auto", **WORDS)
    told = (tmp_path / "info.log").read_text()
    assert told.index("Training began: epoch 0") < told.index("Training was resumed: epoch 2")
    assert len(pd.read_csv(tmp_path / "history.csv")) == 4


def test_warnings_go_to_a_file_of_their_own(model: SCVI, tmp_path: Path) -> None:
    class Warns(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            logger.warning("look here")

    run = RunLogger(tmp_path / "run", level="ERROR")
    model.train(1, callbacks=[run, Warns()], **WORDS)
    assert "WARNING look here" in (tmp_path / "run" / "warning.log").read_text()
    assert (tmp_path / "run" / "info.log").read_text() == ""
    assert not (tmp_path / "run" / "error.log").exists()


def test_without_a_folder_every_run_gets_a_new_one(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunLogger()
    for _ in range(2):
        model.train(1, callbacks=run, default_root_dir=tmp_path / "here", **WORDS)
    assert len(list((tmp_path / "here" / "runs").iterdir())) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="Did you mean 'WARNING'"):
        RunLogger(level="WARNIN")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.25, "3.2 s"), (218, "3 min 38 s"), (7200, "2 h 0 min 0 s"), (90061, "1 d 1 h 1 min 1 s")],
)
def test_durations_read_like_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
