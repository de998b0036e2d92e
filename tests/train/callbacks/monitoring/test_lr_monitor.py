"""Learning rates of every epoch are among the metrics, under Lightning's names."""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from cellvae.data import Split
from cellvae.train.callbacks.monitoring.lr_monitor import LRMonitor, RecordLearningRate
from cellvae.train.callbacks.scheduling.lr_scheduler import LRSchedulerCallback
from cellvae.train.callbacks.scheduling.stages import Stage, Stages
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


def history(module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any) -> Any:
    given = {"max_epochs": 3, "enable_progress_bar": False, "accelerator": "cpu"}
    parsed = parse_train_kwargs({**given, "callbacks": list(callbacks), **kwargs})
    outcome = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
    assert outcome.error is None
    return outcome.history


def test_the_rate_is_in_the_history_without_a_logger(module: Any, rows: Any, split: Split) -> None:
    found = history(module, rows, split, LRMonitor(True, True), plan_kwargs={"lr": 0.02})
    assert found["lr-Adam"].iloc[:, 0].tolist() == pytest.approx([0.02] * 3)
    assert found["lr-Adam-momentum"].iloc[:, 0].tolist() == pytest.approx([0.9] * 3)
    assert found["lr-Adam-weight_decay"].iloc[:, 0].tolist() == pytest.approx([1e-6] * 3)


def test_it_is_the_rate_that_the_epoch_used(module: Any, rows: Any, split: Split) -> None:
    stages = Stages([Stage(epochs=1), Stage(epochs=1, lr_factor=0.1), Stage(lr=0.5)])
    found = history(module, rows, split, LRMonitor(), stages, plan_kwargs={"lr": 0.02})
    assert found["lr-Adam"].iloc[:, 0].tolist() == pytest.approx([0.02, 0.002, 0.5])


@pytest.mark.parametrize("driven", [True, False])
def test_a_schedule_switches_it_on(module: Any, rows: Any, split: Split, driven: bool) -> None:
    schedule = LRSchedulerCallback("exponential", arguments={"gamma": 0.5})
    found = history(module, rows, split, *([schedule] if driven else []))
    assert ("lr-Adam" in found) == driven
    if driven:
        assert found["lr-Adam"].iloc[:, 0].tolist() == pytest.approx([1e-3, 5e-4, 2.5e-4])


class Twins(pl.LightningModule):
    """Two optimizers of one kind, the first of two groups."""

    def __init__(self, names: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.names = names
        self.a, self.b, self.c = (torch.nn.Linear(1, 1) for _ in range(3))
        self.seen: list[dict[str, float]] = []

    def configure_optimizers(self) -> Any:
        first: dict[str, Any] = {"params": list(self.a.parameters()), "lr": 0.1}
        second: dict[str, Any] = {"params": list(self.b.parameters()), "lr": 0.2, "momentum": 0.5}
        if self.names:
            first["name"], second["name"] = "left", "right"
        return [
            torch.optim.SGD([first, second], lr=1.0, weight_decay=0.25),
            torch.optim.SGD(self.c.parameters(), lr=0.3),
        ]

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()

    def on_train_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        self.seen.append({k: float(v) for k, v in metrics.items() if k.startswith("lr-")})


@pytest.mark.parametrize("names", [False, True])
def test_names_are_those_of_lightning(tmp_path: Any, names: bool) -> None:
    ours, theirs = LRMonitor(True, True), LearningRateMonitor("epoch", True, True)
    module = Twins(names)
    trainer = pl.Trainer(
        max_epochs=1,
        logger=CSVLogger(tmp_path),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[ours, theirs],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, torch.utils.data.DataLoader(torch.ones(2, 1)))
    found, wanted = module.seen[0], {k: v[0] for k, v in theirs.lrs.items()}
    assert {k: found[k] for k in wanted} == pytest.approx(wanted)
    left = "left" if names else "pg1"
    assert found[f"lr-SGD/{left}"] == pytest.approx(0.1)
    assert found[f"lr-SGD/{left}-weight_decay"] == pytest.approx(0.25)
    assert found["lr-SGD-1"] == pytest.approx(0.3)


def test_the_former_name_is_kept() -> None:
    assert RecordLearningRate is LRMonitor


def test_it_changes_nothing(module: Any, rows: Any, split: Split) -> None:
    state = {k: v.clone() for k, v in module.state_dict().items()}
    history(module, rows, split, LRMonitor(True, True))
    watched = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    history(module, rows, split)
    assert all(np.array_equal(v, watched[k]) for k, v in module.state_dict().items())
