"""A run from beginning to end, however it ends."""

from __future__ import annotations

import copy
import gc
import os
import signal
import sys
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from cellvae.core.seeds import isolated_rng
from cellvae.data import Split
from cellvae.data.storage.memory import ColumnRows
from cellvae.errors import InvalidDataError, InvalidOptionError, TrainingError, TrainingWarning
from cellvae.model.scvi import SCVIModule
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.records.history import History
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit
from cellvae.train.run.run_start import RunStart

pytestmark = pytest.mark.trains


def train(module: Any, rows: Any, split: Split, **kwargs: Any) -> RunResult:
    history, seed = kwargs.pop("history", None), kwargs.pop("seed", 1)
    parsed = parse_train_kwargs(
        {"max_epochs": 3, "enable_progress_bar": False, "batch_size": 16, **kwargs}
    )
    return fit(
        module,
        rows,
        split,
        parsed.options,
        seed=seed,
        callbacks=parsed.callbacks,
        start=RunStart(history=history or History()),
    )


class Raise(pl.Callback):
    def __init__(self, error: BaseException, epoch: int) -> None:
        self.error, self.epoch = error, epoch

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.error


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.state_dict().values()]).double()


def test_a_run_records_every_metric_of_every_epoch(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    outcome = train(module, rows, split, check_val_every_n_epoch=1)
    table = outcome.history.table
    parts = ["elbo", "reconstruction_loss", "kl_local", "kl_global"]
    names = {f"{part}_{name}" for part in parts for name in ("train", "validation")}
    assert set(table.columns) == names | {"train_loss", "validation_loss", "kl_weight"}
    assert table.index.tolist() == [0, 1, 2]
    assert np.isfinite(table.to_numpy()).all()
    # Four steps an epoch: the last step of the first epoch is number 3 of a warm-up of 6.
    assert table["kl_weight"].tolist() == [0.5, 1.0, 1.0]
    assert outcome.report.status == "completed"
    assert outcome.report.epochs == 3
    assert not module.training


def test_the_validation_elbo_is_that_of_the_weights_of_the_epoch(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    outcome = train(module, rows, split, check_val_every_n_epoch=1, seed=7)
    losses = []
    with isolated_rng(7, "validation"), torch.inference_mode():
        for first in range(0, len(split.validation), 16):
            cells = torch.from_numpy(split.validation[first : first + 16])
            losses.append(module.loss(rows.take(cells), torch.tensor(1.0)))
    by_hand = torch.cat([loss.total_reconstruction + loss.total_kl for loss in losses]).mean()
    assert outcome.history["elbo_validation"].iloc[-1, 0] == pytest.approx(float(by_hand), rel=1e-6)


def test_validation_noise_is_the_same_in_every_epoch(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    # With so small a learning rate the weights stay, so that only the noise could differ.
    kwargs = {"plan_kwargs": {"lr": 1e-30, "kl_weight": 1.0}, "check_val_every_n_epoch": 1}
    module.requires_grad_(requires_grad=False)
    module.px_r.requires_grad_(requires_grad=True)  # type: ignore[union-attr]
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.momentum = 0.0
    values = train(module, rows, split, **kwargs).history["elbo_validation"]["elbo_validation"]
    assert values.nunique() == 1


def test_validation_is_off_unless_something_needs_it(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    assert "elbo_validation" not in train(module, rows, split).history
    assert "elbo_validation" in train(module, rows, split, early_stopping=True).history


def test_validation_every_second_epoch_leaves_gaps(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    history = train(module, rows, split, max_epochs=4, check_val_every_n_epoch=2).history
    assert history["elbo_validation"].index.tolist() == [1, 3]
    assert history["elbo_train"].index.tolist() == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(
    rows: ColumnRows, split: Split, module: SCVIModule
) -> None:
    start = {k: v.clone() for k, v in module.state_dict().items()}
    found = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        module.load_state_dict(start)
        before = torch.random.get_rng_state()
        train(module, rows, split, seed=3)
        assert torch.equal(before, torch.random.get_rng_state())
        found.append(weights(module))
    assert torch.equal(found[0], found[1])
    module.load_state_dict(start)
    train(module, rows, split, seed=4)
    assert not torch.equal(found[0], weights(module))


def test_prefetching_gives_the_same_weights(
    rows: ColumnRows, split: Split, module: SCVIModule
) -> None:
    start = {k: v.clone() for k, v in module.state_dict().items()}
    train(module, rows, split)
    alone = weights(module)
    module.load_state_dict(start)
    train(module, rows, split, datasplitter_kwargs={"num_workers": 2})
    assert torch.equal(alone, weights(module))


@pytest.mark.parametrize("n_train", [2, 3, 17, 18, 33, 49])
def test_no_batch_is_too_small_for_batch_norm(
    module: SCVIModule, rows: ColumnRows, split: Split, n_train: int
) -> None:
    few = Split(train=split.train[:n_train], validation=split.validation[:1], test=split.test)
    outcome = train(module, rows, few, check_val_every_n_epoch=1)
    assert outcome.error is None
    assert outcome.history["elbo_validation"].shape == (3, 1)


def test_one_cell_and_batches_of_one_are_refused(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    one = Split(train=split.train[:1], validation=split.validation, test=split.test)
    with pytest.raises(InvalidDataError, match="at least 2 cells to train on, since .*; got 1"):
        train(module, rows, one)
    with pytest.raises(InvalidOptionError, match="batch_size"):
        train(module, rows, split, batch_size=1)


def test_an_exception_in_the_first_epoch_leaves_the_weights_as_they_were(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    before = weights(module)
    error = RuntimeError("disk full")
    outcome = train(module, rows, split, callbacks=Raise(error, 0))
    assert outcome.error is error
    assert not outcome.keep_weights
    assert torch.equal(before, weights(module))
    assert outcome.report.status == "failed"
    assert "disk full" in outcome.report.reason


def test_an_exception_in_validation_does_not_change_the_random_numbers_of_a_later_run(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    class FailInValidation(pl.Callback):
        def on_validation_batch_end(self, *_: Any) -> None:
            raise OSError("disk full")

    class CollectGarbage(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            gc.collect()

    start = copy.deepcopy(module)
    train(module, rows, split)
    failed = copy.deepcopy(start)
    gc.disable()
    try:
        outcome = train(
            failed, rows, split, callbacks=[FailInValidation()], check_val_every_n_epoch=1
        )
        assert isinstance(outcome.error, OSError)
        del failed, outcome
        # What the failed run has left is freed between two steps of this one.
        train(start, rows, split, callbacks=[CollectGarbage()])
    finally:
        gc.enable()
    assert torch.equal(weights(start), weights(module))


def test_an_exception_later_keeps_what_was_learned(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    before = weights(module)
    outcome = train(module, rows, split, callbacks=[Raise(ValueError("no"), 2)])
    assert outcome.keep_weights
    assert outcome.history.epochs == [0, 1]
    assert not torch.equal(before, weights(module))
    assert not module.training


def test_an_exception_in_a_further_run_leaves_the_model_as_it_was(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    first = train(module, rows, split)
    before = weights(module)
    outcome = train(
        module, rows, split, history=first.history, callbacks=[Raise(ValueError("no"), 1)]
    )
    assert not outcome.keep_weights
    assert torch.equal(before, weights(module))
    assert first.history.epochs == [0, 1, 2]


def test_ctrl_c_ends_the_run_and_returns(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    class CtrlC(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    outcome = train(module, rows, split, callbacks=[CtrlC()])
    assert outcome.report.status == "interrupted"
    assert outcome.error is None
    assert outcome.keep_weights
    assert outcome.history.epochs == [0, 1]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_the_weights_as_they_were(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    before = weights(module)
    outcome = train(module, rows, split, plan_kwargs={"lr": 1e30})
    assert isinstance(outcome.error, TrainingError)
    assert "the training loss was not finite in epoch 0 (batch" in str(outcome.error)
    assert outcome.report.status == "not_finite"
    assert not outcome.keep_weights
    assert torch.equal(before, weights(module))


def test_a_loss_that_is_not_finite_restores_the_best_weights(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    class Poison(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 2:
                next(pl_module.parameters()).data.fill_(float("nan"))

    with pytest.warns(TrainingWarning, match="The best weights are back"):
        outcome = train(
            module, rows, split, max_epochs=5, early_stopping=True, callbacks=[Poison()]
        )
    assert outcome.error is None
    assert (outcome.report.status, outcome.report.epochs) == ("not_finite", 3)
    assert outcome.report.restored_epoch in (0, 1)
    assert bool(torch.isfinite(weights(module)).all())


def test_a_further_run_continues_epochs_and_kl_weight(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    first = train(module, rows, split)
    second = train(
        module, rows, split, history=first.history, max_epochs=2, check_val_every_n_epoch=1
    )
    assert second.history.epochs == [0, 1, 2, 3, 4]
    assert second.history["elbo_validation"].index.tolist() == [3, 4]
    assert second.history["kl_weight"]["kl_weight"].tolist() == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_limits_of_the_trainer_are_reported(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    outcome = train(module, rows, split, max_steps=2)
    assert outcome.report.status == "stopped_early"
    assert outcome.history["elbo_train"].shape == (1, 1)
    outcome = train(module, rows, split, max_epochs=10_000, max_time={"seconds": 0})
    assert outcome.report.status == "time_limit"
    # In the only epoch, after its first batch.
    limits = {"max_time": {"seconds": 0}, "steps_per_block": 1}
    outcome = train(module, rows, split, max_epochs=1, **limits)
    assert outcome.report.status == "time_limit"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 1.0},
        {"callbacks": [pl.callbacks.GradientAccumulationScheduler({0: 2})]},
        {"callbacks": [pl.callbacks.StochasticWeightAveraging(1e-3, swa_epoch_start=1)]},
        {"callbacks": [pl.callbacks.Timer("00:00:10:00")]},
        {"detect_anomaly": True},
        {"limit_train_batches": 2},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"num_sanity_val_steps": 2},
        {"overfit_batches": 1},
        {"val_check_interval": 2},
        {"reload_dataloaders_every_n_epochs": 1},
        {"inference_mode": False},
    ],
)
def test_what_lightning_offers_works(
    module: SCVIModule, rows: ColumnRows, split: Split, kwargs: dict[str, Any]
) -> None:
    outcome = train(module, rows, split, check_val_every_n_epoch=1, **kwargs)
    assert outcome.error is None
    assert np.isfinite(outcome.history["elbo_validation"]).all(axis=None)
    assert {p.dtype for p in module.parameters()} == {torch.float32}


# torch 2.13 looks at hand-written gradients in a way that it warns of itself.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_loss_gives_the_same_weights(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    start = {k: v.clone() for k, v in module.state_dict().items()}
    train(module, rows, split)
    plain = weights(module)
    module.load_state_dict(start)
    plan = {"compile": True, "compile_kwargs": {"backend": "eager"}}
    outcome = train(module, rows, split, plan_kwargs=plan)
    assert outcome.error is None
    torch.testing.assert_close(weights(module), plain, rtol=1e-5, atol=1e-6)


def test_an_argument_that_lightning_refuses_says_so(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    with pytest.raises(InvalidOptionError, match="Lightning's Trainer refused"):
        train(module, rows, split, accelerator="abacus")
    with pytest.raises(InvalidOptionError, match="Expected strategy='ddp'"):
        train(module, rows, split, devices=2, strategy="ddp_notebook")


def test_several_devices_in_a_notebook_are_refused(
    module: SCVIModule, rows: ColumnRows, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "ps1", "In [1]:", raising=False)
    with pytest.raises(InvalidOptionError, match="one device in a notebook or console; got .*2"):
        train(module, rows, split, devices=2)


def test_the_logger_gets_steps_if_requested(
    module: SCVIModule, rows: ColumnRows, split: Split, tmp_path: Any
) -> None:
    logger = pl.loggers.CSVLogger(tmp_path)
    outcome = train(
        module, rows, split, logger=logger, plan_kwargs={"on_step": True}, log_every_n_steps=1
    )
    assert outcome.error is None
    text = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "train_loss_step" in text
    assert "elbo_train" in text


def test_the_learning_rate_is_a_metric_and_falls_on_a_plateau(
    module: SCVIModule, rows: ColumnRows, split: Split
) -> None:
    plan = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e6, "lr_factor": 0.5}
    history = train(module, rows, split, plan_kwargs=plan, max_epochs=4).history
    assert history["lr-Adam"]["lr-Adam"].tolist() == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])
    assert "elbo_validation" in history
