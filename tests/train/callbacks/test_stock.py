"""Callbacks and loggers of Lightning work in a run of a model."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData, read_h5ad
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    DeviceStatsMonitor,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateFinder,
    LearningRateMonitor,
    ModelSummary,
    RichModelSummary,
    RichProgressBar,
    StochasticWeightAveraging,
    Timer,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger

from cellvae.model import SCVI

pytestmark = pytest.mark.trains


@pytest.fixture
def model() -> SCVI:
    """Model of 80 cells, of which 72 are for training: five batches of at most 16."""
    adata = AnnData(np.random.default_rng(0).poisson(3.0, (80, 10)).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(80)]
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


class Watch(pl.Callback):
    """Keeps the count of optimizer steps and the parameters at the start of every epoch."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.parameters: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.steps.append(trainer.global_step)
        self.parameters.append(flat(pl_module.module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.steps.append(trainer.global_step)


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).double()


def train(model: SCVI, *callbacks: pl.Callback, **kwargs: Any) -> pd.DataFrame:
    given = {"max_epochs": 4, "batch_size": 16, "accelerator": "cpu", "seed": 0}
    given |= {"enable_progress_bar": False}
    model.train(callbacks=list(callbacks), **{**given, **kwargs})
    assert model.training_report is not None
    return model.history.table


def test_gradients_accumulate_by_a_schedule(model: SCVI) -> None:
    watch = Watch()
    table = train(model, GradientAccumulationScheduler({0: 4, 1: 2}), watch)
    # Five batches: 4 + 1, then 2 + 2 + 1.
    assert np.diff(watch.steps).tolist() == [2, 3, 3, 3]
    assert len(table) == 4


@pytest.mark.parametrize(
    "validate",
    [
        None,
        1,
    ],
)
def test_weights_are_averaged(model: SCVI, validate: int | None) -> None:
    watch = Watch()
    swa = StochasticWeightAveraging(1e-2, swa_epoch_start=2)
    train(model, swa, watch, check_val_every_n_epoch=validate)
    # Lightning counts the epoch of the begin from 1.
    wanted = torch.stack(watch.parameters[1:4]).mean(0)
    assert torch.allclose(flat(model.module), wanted, rtol=0, atol=1e-6)
    assert not torch.equal(watch.parameters[2], watch.parameters[3])


def test_the_pass_after_averaging_is_no_epoch(model: SCVI) -> None:
    table = train(model, StochasticWeightAveraging(1e-2, swa_epoch_start=2))
    assert table.index.tolist() == [0, 1, 2, 3]
    assert model.training_report is not None
    assert model.training_report.epochs == 4
    assert train(model).index.tolist() == list(range(8))


def test_weights_are_averaged_exponentially(model: SCVI) -> None:
    train(model, EMAWeightAveraging(decay=0.5))
    averaged = flat(model.module)
    torch.manual_seed(0)
    other = SCVI(model.adata, n_hidden=8, n_latent=2)
    train(other)
    assert not torch.allclose(averaged, flat(other.module))
    assert torch.isfinite(averaged).all()


def test_a_timer_measures_and_stops(model: SCVI) -> None:
    timer = Timer(timedelta(hours=1))
    assert len(train(model, timer)) == 4
    assert 0 < timer.time_elapsed("train") < 3600
    table = train(model, Timer(timedelta(microseconds=1), interval="epoch"), max_epochs=50)
    assert len(table) < 54
    assert model.is_trained


def test_a_learning_rate_is_found(model: SCVI) -> None:
    finder = LearningRateFinder(num_training_steps=20)
    table = train(model, finder)
    assert len(table) == 4
    assert finder.optimal_lr is not None
    rate = finder.optimal_lr.suggestion()
    torch.manual_seed(0)
    other = SCVI(model.adata, n_hidden=8, n_latent=2)
    pd.testing.assert_frame_equal(table, train(other, plan_kwargs={"lr": rate}))
    assert torch.equal(flat(model.module), flat(other.module))


@pytest.mark.parametrize("epochs", [4, 12])
def test_a_batch_size_is_found(model: SCVI, epochs: int) -> None:
    finder = BatchSizeFinder(init_val=8, max_trials=3, steps_per_trial=2)
    table = train(model, finder, max_epochs=epochs, check_val_every_n_epoch=1)
    assert finder.optimal_batch_size == 32
    assert table.index.tolist() == [*range(epochs)]
    torch.manual_seed(0)
    other = SCVI(model.adata, n_hidden=8, n_latent=2)
    again = train(other, max_epochs=epochs, check_val_every_n_epoch=1, batch_size=32)
    pd.testing.assert_frame_equal(table, again, check_like=True)
    assert torch.equal(flat(model.module), flat(other.module))


def test_statistics_of_the_device_go_to_a_logger(model: SCVI, tmp_path: Path) -> None:
    assert len(train(model, DeviceStatsMonitor(cpu_stats=False), logger=CSVLogger(tmp_path))) == 4


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
@pytest.mark.parametrize("enabled", [True, False])
def test_bars_replace_ours(
    model: SCVI, bar: type[pl.Callback], enabled: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    if bar is RichProgressBar:
        pytest.importorskip("rich")
    assert len(train(model, bar(), enable_progress_bar=enabled)) == 4
    out, err = capfd.readouterr()
    assert "Epoch 3" in out + err


@pytest.mark.parametrize("summary", [RichModelSummary, ModelSummary])
def test_a_summary_changes_nothing(model: SCVI, summary: type[pl.Callback]) -> None:
    if summary is RichModelSummary:
        pytest.importorskip("rich")
    table = train(model, summary())
    torch.manual_seed(0)
    pd.testing.assert_frame_equal(table, train(SCVI(model.adata, n_hidden=8, n_latent=2)))


def test_a_lambda_logs_a_metric(model: SCVI) -> None:
    values = iter([3.0, 1.0, 2.0, 2.0])
    logs = LambdaCallback(on_train_epoch_end=lambda trainer, plan: plan.log("mine", next(values)))
    assert train(model, logs)["mine"].tolist() == [3, 1, 2, 2]


def test_what_a_lambda_logs_can_be_followed(model: SCVI) -> None:
    values = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    logs = LambdaCallback(on_train_epoch_end=lambda trainer, plan: plan.log("mine", next(values)))
    kwargs = {"early_stopping": "mine", "early_stopping_patience": 2, "early_stopping_mode": "min"}
    table = train(model, logs, **kwargs, max_epochs=5)
    assert table["mine"].tolist() == [3, 1, 2, 2]
    assert model.training_report is not None
    assert model.training_report.best_epoch == 1


def test_rates_go_to_a_logger(model: SCVI, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    table = train(model, LearningRateMonitor("epoch"), logger=logger, plan_kwargs={"lr": 0.02})
    found = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert found["lr-Adam"].dropna().tolist() == pytest.approx([0.02] * 4)
    assert len(table) == 4


def test_metrics_go_to_a_logger(model: SCVI, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    table = train(model, logger=logger, check_val_every_n_epoch=1)
    found = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    for name in ("elbo_train", "elbo_validation", "kl_weight"):
        assert found[name].dropna().tolist() == pytest.approx(table[name].tolist(), rel=1e-5)


def test_metrics_go_to_tensorboard(model: SCVI, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="it comes with the test extra")
    from lightning.pytorch.loggers import TensorBoardLogger

    assert len(train(model, logger=TensorBoardLogger(tmp_path))) == 4
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_metrics_go_to_weights_and_biases(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="too large to come with the tests: pip install wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = WandbLogger(save_dir=tmp_path, offline=True)
        assert len(train(model, logger=logger)) == 4
        summary = dict(logger.experiment.summary)
        logger.experiment.finish()
    assert summary["elbo_train"] == pytest.approx(
        model.history.last_numeric("elbo_train"), rel=1e-5
    )


def test_real_cells_with_several_of_them(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")
    adata = adata[:400, np.asarray(adata.X.sum(0)).ravel().argsort()[-200:]].copy()
    SCVI.setup_anndata(adata)
    real = SCVI(adata, n_hidden=16, n_latent=4)
    table = train(
        real,
        GradientAccumulationScheduler({2: 2}),
        Timer(),
        LambdaCallback(on_train_epoch_end=lambda trainer, plan: plan.log("one", 1.0)),
        plan_kwargs={"lr": 0.01},
        batch_size=64,
        max_epochs=5,
    )
    assert table["one"].tolist() == [1.0] * 5
    assert table["elbo_train"].iloc[-1] < table["elbo_train"].iloc[0]


@pytest.mark.parametrize(
    "stock", [LearningRateMonitor("epoch"), DeviceStatsMonitor(cpu_stats=False)]
)
def test_callbacks_that_want_a_logger_get_one_that_writes_nothing(
    model: SCVI, stock: pl.Callback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = train(model, stock)
    assert len(table) == 4
    assert list(tmp_path.iterdir()) == []
    if isinstance(stock, LearningRateMonitor):
        assert table["lr-Adam"].tolist() == pytest.approx([1e-3] * 4)
