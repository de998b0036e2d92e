"""Loggers of Lightning in a run: hyperparameters, metrics, and artifacts where there are such."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anndata import AnnData
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger

from cellvae import load
from cellvae.model import SCVI
from cellvae.train.records.artifacts import as_loggers, has_artifacts

pytestmark = pytest.mark.trains


class Experiment:
    """Stand-in for a run of W&B and a client of MLflow; stores what it is given."""

    id = "run7"

    def __init__(self, store: Path) -> None:
        self.store = store
        self.params: dict[str, Any] = {}
        self.metrics: list[dict[str, Any]] = []
        self.artifacts: dict[str, Any] = {}
        self.broken = False

    def log_artifact(self, *given: str, **kwargs: str) -> Experiment:
        if self.broken:
            raise ConnectionError("no route")
        path = Path(given[-1])
        self.artifacts[kwargs.get("name", path.name)] = (kwargs.get("type"), self.keep(path))
        return self

    def log_artifacts(self, run_id: str, path: str, target: str) -> None:
        self.artifacts[target] = (run_id, self.keep(Path(path)))

    def keep(self, path: Path) -> Path:
        """Copy a file or folder, as a tracker does."""
        copy = self.store / path.name
        return path.rename(copy)


class OfflineMixin:
    """Logger whose experiment is the stand-in."""

    def __init__(self, store: Path, log_model: bool) -> None:
        self._experiment = Experiment(store)
        self._log_model = log_model

    experiment = property(lambda self: self._experiment)
    run_id = "run7"
    name = version = save_dir = None

    def log_hyperparams(self, params: dict[str, Any], *rest: Any) -> None:
        self._experiment.params = params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._experiment.metrics.append(metrics)

    def save(self) -> None:
        """Nothing is written."""

    def finalize(self, status: str) -> None:
        """Nothing is ended."""

    def log_graph(self, *given: Any) -> None:
        """No graph."""


class OfflineWandb(OfflineMixin, WandbLogger):
    """Weights & Biases without its service."""


class OfflineMLFlow(OfflineMixin, MLFlowLogger):
    """MLflow without its server."""


@pytest.fixture
def model() -> SCVI:
    adata = AnnData(np.random.default_rng(0).poisson(3.0, (80, 10)).astype(np.float32))
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


def train(model: SCVI, logger: Any) -> None:
    model.train(
        3, early_stopping=True, accelerator="cpu", seed=0, enable_progress_bar=False, logger=logger
    )


@pytest.mark.parametrize(
    ("cls", "page", "folder"),
    [
        (OfflineWandb, ("report-run7", "report"), ("model-run7", "model")),
        (OfflineMLFlow, ("report.html", None), ("model", "run7")),
    ],
)
def test_report_and_best_model_are_artifacts(
    cls: Any, page: tuple[str, str], folder: tuple[str, str], model: SCVI, tmp_path: Path
) -> None:
    logger = cls(tmp_path, True)
    train(model, logger)
    found = logger.experiment
    assert set(found.artifacts) == {page[0], folder[0]}
    assert [found.artifacts[name][0] for name, _ in (page, folder)] == [page[1], folder[1]]
    assert "SCVI of 80 cells" in found.artifacts[page[0]][1].read_text()
    saved = load(found.artifacts[folder[0]][1], model.adata)
    # The best weights, which the run ended with.
    np.testing.assert_array_equal(
        saved.get_latent_representation(), model.get_latent_representation()
    )
    assert found.params["model"] == "SCVI"
    assert found.params["config"]["n_hidden"] == 8
    assert found.params["train"]["optimizer"]["lr"] == 0.001
    assert found.params["n_cells"] == 80
    named = {name for row in found.metrics for name in row}
    assert {"elbo_train", "elbo_validation", "kl_weight"} <= named


def test_the_model_stays_here_unless_the_logger_asks_for_it(model: SCVI, tmp_path: Path) -> None:
    logger = OfflineWandb(tmp_path, False)
    train(model, [logger, CSVLogger(tmp_path / "csv")])
    assert set(logger.experiment.artifacts) == {"report-run7"}
    (options,) = (tmp_path / "csv").rglob("hparams.yaml")
    assert yaml.safe_load(options.read_text())["train"]["max_epochs"] == 3
    (metrics,) = (tmp_path / "csv").rglob("metrics.csv")
    assert "elbo_validation" in metrics.read_text().splitlines()[0]


def test_a_tracker_that_cannot_be_reached_costs_a_warning(
    model: SCVI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = OfflineWandb(tmp_path, True)
    logger.experiment.broken = True
    with caplog.at_level(logging.WARNING, "cellvae"):
        train(model, logger)
    assert model.is_trained
    assert [r.getMessage().split(" could")[0] for r in caplog.records] == [
        "'report.html'",
        "'model'",
    ]
    assert "ConnectionError: no route" in caplog.text


def test_loggers_without_artifacts_are_left_alone(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    assert not has_artifacts(logger)
    assert as_loggers(True) == as_loggers(None) == []
    assert as_loggers(logger) == as_loggers((logger,)) == [logger]


@pytest.mark.slow
def test_mlflow_itself_has_the_run(model: SCVI, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    import mlflow

    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/runs.db", log_model=True,
                          artifact_location=str(tmp_path / "artifacts"))  # fmt: skip
    train(model, logger)
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db").get_run(logger.run_id)
    assert run.data.params["config/n_hidden"] == "8"
    assert run.data.metrics["elbo_validation"] > 0
    (page,) = (tmp_path / "artifacts").rglob("report.html")
    (folder,) = (tmp_path / "artifacts").rglob("model.json")
    assert page.stat().st_size > 1000
    assert json.loads(folder.read_text())


@pytest.mark.slow
def test_wandb_itself_has_the_run(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    with caplog.at_level(logging.WARNING, "cellvae"):
        logger = WandbLogger(save_dir=tmp_path, log_model=True)
        train(model, logger)
    assert logger.experiment.config["config"]["n_hidden"] == 8
    assert "elbo_validation" in logger.experiment.summary.keys()  # noqa: SIM118
    assert not caplog.records
    wandb.finish()
