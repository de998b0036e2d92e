"""Whatever ends a run, the model can be used, and the report says what happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.errors import InvalidOptionError, TrainingWarning
from cellvae.model import SCVI
from cellvae.train import EarlyStopping, NaNGuard, SaveCheckpoint, StopTraining

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {
    "batch_size": 16,
    "seed": 3,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}


def flat(model: SCVI) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.module.state_dict().values()])


class At(pl.Callback):
    """Does something in the second batch of an epoch."""

    def __init__(self, epoch: int, what: Callable[[], None]) -> None:
        self.epoch, self.what = epoch, what

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            self.what()


def raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


ENDINGS: dict[str, tuple[Callable[[], None], str, type[BaseException] | None]] = {
    "error": (raising(KeyError("mine")), "failed", KeyError),
    "out of memory": (raising(torch.cuda.OutOfMemoryError("CUDA")), "failed", RuntimeError),
    "memory": (raising(MemoryError()), "failed", MemoryError),
    "interrupt": (raising(KeyboardInterrupt()), "interrupted", None),
    "ctrl-c": (lambda: os.kill(os.getpid(), signal.SIGINT), "interrupted", None),
    "sigterm": (lambda: os.kill(os.getpid(), signal.SIGTERM), "terminated", SystemExit),
    "stop": (raising(StopTraining("seen enough")), "stopped_early", None),
    "exit": (raising(SystemExit(3)), "failed", SystemExit),
}


@pytest.mark.parametrize("monitored", [False, True])
@pytest.mark.parametrize("name", ENDINGS)
def test_a_first_run_that_is_cut_off_leaves_good_weights(
    adata: AnnData, make: Callable[..., SCVI], name: str, monitored: bool
) -> None:
    what, status, error = ENDINGS[name]
    model = make(adata)
    kwargs = WORDS | ({"early_stopping": True} if monitored else {})
    if error is None:
        model.train(9, callbacks=At(4, what), **kwargs)
    else:
        with pytest.raises(error) as info:
            model.train(9, callbacks=At(4, what), **kwargs)
        if name == "sigterm":
            assert info.value.code == 143
        if name == "error":
            assert info.value.args == ("mine",)
    report = model.training_report
    assert report is not None
    assert report.status == status
    assert model.is_trained
    assert not any(part.training for part in model.module.modules())
    assert bool(torch.isfinite(flat(model)).all())
    assert model.train_indices is not None
    assert model.history.epochs[:4] == [0, 1, 2, 3]
    assert np.isfinite(model.get_latent_representation()).all()
    assert report.peak_memory_mib is not None and report.peak_memory_mib > 50
    assert report.cells_per_second > 0
    if monitored:
        best = model.history["elbo_validation"]["elbo_validation"]
        assert report.restored_epoch == best.idxmin()
        assert report.best_score == pytest.approx(best.min())
    if name == "stop":
        assert "seen enough" in report.reason
    # It can be trained further, and SIGINT and SIGTERM mean what they meant.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    model.train(1, **WORDS)
    assert model.training_report is not None and model.training_report.status == "completed"


@pytest.mark.parametrize("name", ["error", "out of memory", "exit"])
def test_a_further_run_that_fails_leaves_the_model_as_it_was(
    adata: AnnData, make: Callable[..., SCVI], name: str
) -> None:
    what, _, error = ENDINGS[name]
    model = make(adata)
    model.train(2, **WORDS)
    before, table, split = flat(model), model.history.table, model.train_indices
    assert error is not None
    with pytest.raises(error):
        model.train(9, callbacks=At(4, what), **WORDS)
    assert torch.equal(before, flat(model))
    pd.testing.assert_frame_equal(model.history.table, table)
    assert model.train_indices is split
    assert model.is_trained


@pytest.mark.parametrize(
    "hook",
    [
        "on_train_epoch_start",
        "on_train_batch_start",
        "on_train_batch_end",
        "on_validation_epoch_end",
        "on_train_epoch_end",
    ],
)
def test_stop_training_reaches_all_callbacks_before_the_run_ends(
    adata: AnnData, make: Callable[..., SCVI], hook: str
) -> None:
    seen: list[str] = []

    def stop(trainer: pl.Trainer, *_: Any) -> None:
        seen.append("first")
        if trainer.current_epoch == 1:
            raise StopTraining("enough")

    first = pl.callbacks.LambdaCallback(**{hook: stop})
    second = pl.callbacks.LambdaCallback(
        **{hook: lambda *_: seen.append("second")}, on_train_end=lambda *_: seen.append("end")
    )
    model = make(adata)
    model.train(5, callbacks=[first, second], check_val_every_n_epoch=1, **WORDS)
    # An epoch of no batches leaves no row.
    assert model.history.epochs == ([0] if hook == "on_train_epoch_start" else [0, 1])
    assert seen[:-1] == ["first", "second"] * (len(seen) // 2)
    assert seen[-1] == "end"
    assert model.training_report is not None
    assert model.training_report.reason == "stopped early: enough"
    assert getattr(first, hook) is stop  # the callback is as it was


def test_stop_training_from_the_model_itself_ends_the_run(
    adata: AnnData, make: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(adata)
    loss, count = model.module.loss, iter(range(10**6))

    def limited(*arguments: Any) -> Any:
        if next(count) == 9:
            raise StopTraining("nine batches")
        return loss(*arguments)

    monkeypatch.setattr(model.module, "loss", limited)
    model.train(50, **WORDS)
    assert model.is_trained
    assert model.training_report is not None
    assert model.training_report.reason == "stopped early: nine batches"


def test_two_runs_are_one_long_run(adata: AnnData, make: Callable[..., SCVI]) -> None:
    kwargs = WORDS | {"check_val_every_n_epoch": 1, "plan_kwargs": {"n_epochs_kl_warmup": 5}}
    with pytest.warns(TrainingWarning, match="will only reach"):
        whole, halves = make(adata), make(adata)
        whole.train(6, **kwargs)
        halves.train(3, **kwargs)
        split = halves.validation_indices
        halves.train(3, **{k: v for k, v in kwargs.items() if k != "seed"})
    assert halves.history.epochs == [*range(6)]
    pd.testing.assert_frame_equal(whole.history.table, halves.history.table, check_exact=True)
    assert torch.equal(flat(whole), flat(halves))
    assert halves.validation_indices is split
    assert halves.training_report is not None and halves.training_report.first_epoch == 3


@pytest.mark.parametrize(
    ("half", "whole"),
    [
        ({}, {"n_epochs_kl_warmup": 6}),
        ({"n_epochs_kl_warmup": 12}, {}),
        ({"n_epochs_kl_warmup": 12, "lr": 0.01}, {"lr": 0.01}),
    ],
    ids=["default", "warm-up of the whole", "another rate"],
)
def test_the_page_on_long_runs_says_what_two_runs_are(
    adata: AnnData, make: Callable[..., SCVI], half: dict[str, Any], whole: dict[str, Any]
) -> None:
    """The default warm-up is half of the first run; it is given for that of the whole."""
    one, two = make(adata), make(adata)
    one.train(24, **WORDS, **whole)
    two.train(12, **WORDS, **half)
    two.train(12, **{k: v for k, v in WORDS.items() if k != "seed"}, **half)
    pd.testing.assert_frame_equal(one.history.table, two.history.table, check_exact=True)
    assert torch.equal(flat(one), flat(two))
    weights = two.history["kl_weight"]["kl_weight"].tolist()
    n = 12 if half else 6
    assert weights == pytest.approx([min(1, epoch / n) for epoch in range(24)])


def test_a_model_that_was_loaded_begins_with_a_new_optimizer(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    model = make(adata)
    model.train(2, **WORDS)
    model.save(tmp_path / "model")
    loaded = SCVI.load(tmp_path / "model", adata)
    for each in (model, loaded):
        each.train(1, **WORDS)
        assert each.history.epochs == [0, 1, 2]
    assert model.carryover is not None and loaded.carryover is not None
    steps = [int(m.carryover.optimizers[0]["state"][0]["step"]) for m in (model, loaded)]
    assert steps == [12, 4]
    assert np.array_equal(model.train_indices, loaded.train_indices)


def test_a_warm_up_by_steps_goes_on(adata: AnnData, make: Callable[..., SCVI]) -> None:
    kwargs = WORDS | {"plan_kwargs": {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 20}}
    with pytest.warns(TrainingWarning, match="will only reach"):
        whole, halves = make(adata), make(adata)
        whole.train(4, **kwargs)
        halves.train(2, **kwargs)
        halves.train(2, **kwargs)
    column = whole.history["kl_weight"]["kl_weight"]
    assert column.iloc[-1] == pytest.approx(15 / 20)
    assert halves.history["kl_weight"]["kl_weight"].tolist() == column.tolist()


def test_a_learning_rate_asked_for_later_is_the_one_used(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    model = make(adata)
    model.train(2, **WORDS)
    model.train(1, plan_kwargs={"lr": 0.005}, learning_rate_monitor=True, **WORDS)
    assert model.history["lr-Adam"]["lr-Adam"].tolist() == pytest.approx([0.005])
    assert model.carryover is not None
    assert int(model.carryover.optimizers[0]["state"][0]["step"]) == 12  # moments went on


def test_reset_starts_anew(adata: AnnData, make: Callable[..., SCVI]) -> None:
    model = make(adata)
    model.train(3, **WORDS)
    model.train(2, reset=True, **(WORDS | {"seed": 8}))
    assert model.history.epochs == [0, 1]
    fresh = make(adata)
    fresh.train(2, reset=True, **(WORDS | {"seed": 8}))
    assert torch.equal(flat(fresh), flat(model))
    assert np.array_equal(fresh.train_indices, model.train_indices)
    before, table = flat(model), model.history.table
    with pytest.raises(KeyError, match="mine"):
        model.train(4, reset=True, callbacks=At(0, raising(KeyError("mine"))), **WORDS)
    assert torch.equal(before, flat(model))
    assert model.history.table.equals(table)


def test_a_trial_run_marks_nothing_as_trained(adata: AnnData, make: Callable[..., SCVI]) -> None:
    model = make(adata)
    before = flat(model)
    model.train(5, fast_dev_run=True, **WORDS)
    assert not model.is_trained
    assert torch.equal(before, flat(model))
    assert len(model.history.epochs) == 0


def test_defaults_are_listed_replaced_and_left_out(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Any
) -> None:
    model = make(adata)
    assert [*model.default_callbacks()] == ["nan_guard", "progress"]
    mine = NaNGuard("skip_batch")
    assert "nan_guard" not in model.default_callbacks(callbacks=mine)
    assert [*model.default_callbacks(callbacks={"nan_guard": None}, early_stopping=True)] == [
        "progress",
        "early_stopping",
    ]
    assert "training_checkpoint" in model.default_callbacks(run_dir=tmp_path)
    with pytest.raises(InvalidOptionError, match="Did you mean 'nan_guard'"):
        model.train(1, callbacks={"nanguard": None}, **WORDS)
    stop = EarlyStopping("elbo_validation", patience=1, min_delta=1e9)
    model.train(9, callbacks=stop, early_stopping=True, **WORDS)
    assert model.history.epochs == [0, 1]


def test_callbacks_are_taken_as_one_as_several_and_never_changed(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Any
) -> None:
    model = make(adata)
    mine = [SaveCheckpoint(tmp_path / "a"), EarlyStopping()]
    for callbacks in (mine, mine, tuple(mine), mine[0]):
        model.train(1, callbacks=callbacks, **WORDS)
    assert len(mine) == 2
    with pytest.raises(InvalidOptionError, match="same SaveCheckpoint twice"):
        model.train(1, callbacks=[mine[0], mine[0]], **WORDS)


def test_a_failure_in_the_last_hook_spoils_nothing(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    class Last(pl.Callback):
        def on_stop(self, trainer: pl.Trainer, plan: Any, reason: str) -> None:
            self.reason = reason
            raise OSError("too late")

    last = Last()
    model = make(adata)
    model.train(2, callbacks=last, **WORDS)
    assert last.reason == "all epochs done"
    assert model.is_trained


def test_events_reach_every_callback_that_has_a_method_for_them(
    adata: AnnData, make: Callable[..., SCVI]
) -> None:
    seen: list[Any] = []

    class Listens(pl.Callback):
        def on_epoch_complete(self, trainer: pl.Trainer, plan: Any) -> None:
            # Training and validation of the epoch are in the history by now.
            seen.append(("epoch", plan.history.epochs[-1], "elbo_validation" in plan.history))

        def on_my_event(self, trainer: pl.Trainer, plan: Any, value: int) -> None:
            seen.append(("mine", value))

        def on_interrupt(self, trainer: pl.Trainer, plan: Any) -> None:
            seen.append("interrupt")

    class Speaks(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            pl_module.call_callbacks("on_my_event", value=trainer.current_epoch)
            pl_module.call_callbacks("on_nobodys_event")

    press = At(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    make(adata).train(9, callbacks=[Listens(), Speaks(), press], check_val_every_n_epoch=1, **WORDS)
    assert seen == [
        ("mine", 0),
        ("epoch", 0, True),
        ("mine", 1),
        ("epoch", 1, True),
        "interrupt",
    ]


def test_epochs_can_be_cut_short_from_outside(
    adata: AnnData, make: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_LIMIT_BATCHES", "1")
    model = make(adata)
    model.train(2, check_val_every_n_epoch=1, **WORDS)
    assert model.carryover is not None
    assert model.carryover.n_steps == 2


def test_validation_within_epochs(adata: AnnData, make: Callable[..., SCVI]) -> None:
    times: list[int] = []
    count = pl.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, _: times.append(trainer.global_step)
    )
    model = make(adata)
    model.train(2, val_check_interval=2, early_stopping=True, callbacks=count, **WORDS)
    assert times == [2, 4, 6, 8]  # four steps an epoch
    assert model.history.epochs == [0, 1]
    assert len(model.history["elbo_validation"]) == 2


def test_callbacks_of_the_model_come_beside_those_of_the_user(
    adata: AnnData, make: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noting(name: str) -> pl.Callback:
        return pl.callbacks.LambdaCallback(on_train_epoch_start=lambda *_: seen.append(name))

    monkeypatch.setattr(SCVI, "required_callbacks", lambda self: [noting("model's")])
    make(adata).train(2, callbacks=noting("user's"), **WORDS)
    assert seen == ["model's", "user's"] * 2


def test_real_cells_survive_an_error_and_go_on(shared_data: Any) -> None:
    import anndata

    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[::30].copy()
    SCVI.setup_anndata(adata, batch_key="batch")

    def made() -> SCVI:
        torch.manual_seed(0)
        return SCVI(adata, n_hidden=16, n_latent=4)

    kwargs = WORDS | {"batch_size": 64, "check_val_every_n_epoch": 1}
    model = made()
    with pytest.raises(KeyError, match="mine"):
        model.train(9, early_stopping=True, callbacks=At(3, raising(KeyError("mine"))), **kwargs)
    report = model.training_report
    assert report is not None
    assert (report.status, report.epochs) == ("failed", 3)
    best = model.history["elbo_validation"]["elbo_validation"]
    assert report.restored_epoch == best.idxmin()
    assert model.get_latent_representation().shape == (adata.n_obs, 4)

    plan = {"plan_kwargs": {"n_epochs_kl_warmup": 2}}
    whole, halves = made(), made()
    whole.train(4, **kwargs, **plan)
    halves.train(2, **kwargs, **plan)
    halves.train(2, **kwargs, **plan)
    assert torch.equal(flat(whole), flat(halves))
    pd.testing.assert_frame_equal(whole.history.table, halves.history.table, check_exact=True)
