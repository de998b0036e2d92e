"""Which callbacks a run gets, in which order, and what they make it measure."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar

from cellvae.data import Split
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import InvalidOptionError
from cellvae.model.scvi import SCVIModule
from cellvae.train.callbacks.checkpointing.save_checkpoint import SaveCheckpoint
from cellvae.train.callbacks.checkpointing.training_checkpoint import TrainingCheckpoint
from cellvae.train.callbacks.defaults import build_callbacks, callback_group, default_callbacks
from cellvae.train.callbacks.early_stopping.early_stopping import EarlyStopping
from cellvae.train.callbacks.monitoring.lr_monitor import LRMonitor
from cellvae.train.callbacks.monitoring.progress import EpochBar
from cellvae.train.callbacks.nan.nan_guard import NaNGuard
from cellvae.train.callbacks.protocols import Group
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit


class Producer(pl.Callback):
    def __init__(self, *names: str) -> None:
        self.names = names

    def produced_metrics(self) -> tuple[str, ...]:
        return self.names

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name in self.names:
            pl_module.log(name, float(trainer.current_epoch), batch_size=1)


def train(module: Any, rows: Any, split: Split, **kwargs: Any) -> RunResult:
    parsed = parse_train_kwargs(
        {"max_epochs": 2, "enable_progress_bar": False, "batch_size": 16, **kwargs}
    )
    return fit(module, rows, split, parsed.options, seed=1, callbacks=parsed.callbacks)


def test_the_order_is_that_of_the_groups_and_within_one_that_of_the_user(tmp_path: Any) -> None:
    first, second = Producer("a"), pl.Callback()
    saver, stop = SaveCheckpoint(tmp_path), pl.callbacks.EarlyStopping("train_loss")
    extra = [saver, stop, first, second]
    options = parse_train_kwargs(
        {"enable_progress_bar": True, "learning_rate_monitor": True}
    ).options
    made = build_callbacks(options, extra, state_dir=tmp_path)
    assert [type(c) for c in made] == [
        TrainingCheckpoint,
        Producer,
        pl.Callback,
        NaNGuard,
        *sorted([LRMonitor, EpochBar], key=lambda kind: callback_group(kind())),
        pl.callbacks.EarlyStopping,
        SaveCheckpoint,
    ]
    assert extra == [saver, stop, first, second]
    assert callback_group(ModelCheckpoint()) is Group.CHECKPOINT


@pytest.mark.parametrize(
    ("kwargs", "mine", "name"),
    [
        ({}, NaNGuard("raise"), "nan_guard"),
        ({"enable_progress_bar": True}, TQDMProgressBar(), "progress"),
        ({"learning_rate_monitor": True}, LearningRateMonitor(), "learning_rate"),
        ({"early_stopping": True}, EarlyStopping(patience=3), "early_stopping"),
        ({"enable_checkpointing": True}, SaveCheckpoint(), "checkpoint"),
        ({"enable_checkpointing": True}, ModelCheckpoint(), "checkpoint"),
    ],
)
def test_an_instance_replaces_the_default_of_its_kind(
    kwargs: dict[str, Any], mine: pl.Callback, name: str
) -> None:
    options = parse_train_kwargs(kwargs).options
    assert name in default_callbacks(options)
    assert name not in default_callbacks(options, [mine])


def test_early_stopping_of_another_metric_replaces_nothing() -> None:
    options = parse_train_kwargs({"early_stopping": True}).options
    assert "early_stopping" in default_callbacks(options, [EarlyStopping("elbo_train")])


def test_every_word_of_early_stopping_reaches_the_callback() -> None:
    kwargs = {
        "monitor": ["elbo_validation", "train_loss"],
        "patience": 7,
        "min_delta": 0.5,
        "mode": "min",
        "warmup_epochs": "kl",
        "restore_best": "train_loss",
        "combine": "all",
        "patience_epochs": 9,
        "baseline": 300.0,
        "baseline_epochs": 4,
        "stopping_threshold": 1.0,
        "divergence_threshold": 1e6,
        "check_finite": False,
        "verbose": True,
    }
    options = parse_train_kwargs(
        {f"early_stopping_{name}": value for name, value in kwargs.items()}
    ).options
    made = default_callbacks(options)["early_stopping"]
    kept = vars(made) | {"mode": "min"}
    for name, value in kwargs.items():
        assert kept[name] == value or [*kept[name]] == [value] * 2, name


@pytest.mark.trains
@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping(),
        pl.callbacks.EarlyStopping("elbo_validation"),
        SaveCheckpoint(),
        ModelCheckpoint(monitor="validation_loss"),
        Producer("mine_validation"),
        EarlyStopping("validation_elbo"),
    ],
    ids=lambda c: f"{type(c).__module__.partition('.')[0]}-{type(c).__name__}",
)
def test_validation_is_switched_on_by_whatever_needs_it(
    module: SCVIModule, rows: ColumnRows, split: Split, callback: pl.Callback, tmp_path: Any
) -> None:
    kwargs = {"default_root_dir": tmp_path}
    assert "elbo_validation" not in train(module, rows, split, **kwargs).history
    history = train(module, rows, split, callbacks=callback, **kwargs).history
    assert len(history["elbo_validation"]) >= 1  # nothing can be saved without a model
    no_validation = Split(train=split.train, validation=split.test, test=split.test)
    with pytest.raises(InvalidOptionError, match="no validation cells"):
        train(module, rows, no_validation, callbacks=callback, **kwargs)


@pytest.mark.trains
def test_a_plateau_may_be_asked_for_by_another_spelling(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    plan = {"reduce_lr_on_plateau": True, "lr_scheduler_metric": "validation_elbo",
            "lr_patience": 0, "lr_threshold": 1e6}  # fmt: skip
    history = train(module, rows, split, plan_kwargs=plan, max_epochs=4).history
    assert history["lr-Adam"]["lr-Adam"].tolist() == pytest.approx([1e-3, 1e-3, 6e-4, 3.6e-4])


def test_a_stock_callback_looks_for_the_very_name(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    with pytest.raises(InvalidOptionError, match="Did you mean 'elbo_validation'"):
        train(module, rows, split, callbacks=pl.callbacks.EarlyStopping("validation_elbo"))


def test_two_callbacks_with_one_metric_are_refused(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    with pytest.raises(InvalidOptionError, match="got 'mine' from two"):
        train(module, rows, split, callbacks=[Producer("mine"), Producer("yours", "mine")])


@pytest.mark.trains
def test_a_metric_that_is_promised_can_be_followed_and_a_misspelt_one_cannot(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    callbacks = [EarlyStopping("my_score", patience=1, mode="min"), Producer("my_score")]
    outcome = train(module, rows, split, callbacks=callbacks, max_epochs=9)
    assert outcome.history.epochs == [0, 1]  # it grows, and lower is better
    with pytest.raises(InvalidOptionError, match="Did you mean 'my_score'"):
        train(
            module,
            rows,
            split,
            callbacks=[EarlyStopping("my_scroe", mode="min"), Producer("my_score")],
        )


@pytest.mark.trains
def test_accumulation_and_schedules_have_words_of_their_own(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    kwargs: dict[str, Any] = {"lr_schedule": "cosine", "accumulate": {0: 2}, "max_epochs": 4}
    outcome = train(module, rows, split, **kwargs)
    rates = outcome.history["lr-Adam"]["lr-Adam"].to_numpy()
    expected = 1e-3 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    assert rates == pytest.approx(expected)
    assert outcome.carryover is not None
    assert outcome.carryover.n_steps == 8  # four batches an epoch, two to a step
