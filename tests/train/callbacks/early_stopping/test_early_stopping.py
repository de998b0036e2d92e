"""Early stopping: when, why, and with which weights."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.train import EarlyStopping, LoudEarlyStopping
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains


class Script(pl.Callback):
    """Logs a metric from a list, and notes the weights after each epoch."""

    def __init__(self, values: list[float], name: str = "script_loss") -> None:
        self.values, self.name = values, name
        self.seen: list[torch.Tensor] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log(self.name, self.values[trainer.current_epoch])
        self.seen.append(flat(pl_module.module))  # type: ignore[arg-type]


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.state_dict().values()]).double()


def run(
    module: Any, rows: Any, split: Split, values: list[float], **stop: Any
) -> tuple[RunResult, Script, EarlyStopping]:
    script = Script(values)
    early = EarlyStopping("script_loss", **stop)
    kwargs = {"max_epochs": len(values), "enable_progress_bar": False, "callbacks": [script, early]}
    parsed = parse_train_kwargs(kwargs)
    return (
        fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks),
        script,
        early,
    )


def test_it_stops_after_its_patience_and_brings_the_best_weights_back(
    module: Any, rows: Any, split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cellvae"):
        outcome, script, _ = run(module, rows, split, [5, 4, 3, 4, 3, 9, 9], patience=3)
    report = outcome.report
    assert (report.status, report.epochs) == ("stopped_early", 6)
    assert (report.best_epoch, report.best_score, report.restored_epoch) == (2, 3.0, 2)
    assert torch.equal(flat(module), script.seen[2])
    assert "Stopped after epoch 5: script_loss had not improved for 3 checks." in caplog.messages
    assert "Restored best epoch 2 (script_loss=3)." in caplog.messages


def test_the_best_weights_come_back_when_all_epochs_ran(
    module: Any, rows: Any, split: Split
) -> None:
    outcome, script, _ = run(module, rows, split, [5, 1, 2, 3], patience=10)
    assert (outcome.report.status, outcome.report.restored_epoch) == ("completed", 1)
    assert torch.equal(flat(module), script.seen[1])


def test_the_last_weights_stay_when_asked(module: Any, rows: Any, split: Split) -> None:
    outcome, script, _ = run(module, rows, split, [5, 1, 2, 3], patience=10, restore_best=False)
    assert outcome.report.restored_epoch is None
    assert outcome.report.best_epoch == 1
    assert torch.equal(flat(module), script.seen[3])


@pytest.mark.parametrize(
    ("values", "stop", "epochs"),
    [
        ([3, 3, 3, 3, 3], {"patience": 2}, 3),
        ([3, 2.9, 2.8, 2.7, 2.6], {"patience": 2, "min_delta": 0.15}, 5),
        ([3, 2.95, 2.9, 2.85, 2.8], {"patience": 2, "min_delta": 0.25}, 3),
        ([3, 2, 2, 1, 1, 1], {"patience": 0}, 3),
        ([1, 5, 5, 5, 4, 6, 6], {"patience": 2, "warmup_epochs": 3}, 7),
        ([1, 2, 3, 4, 5], {"patience": 2, "mode": "max"}, 5),
        ([5, 4, 3, 2, 1], {"patience": 2, "mode": "max"}, 3),
        ([5, 4, 3, 2, 1], {"patience": 9, "stopping_threshold": 3.5}, 3),
        ([5, 4, 9, 2, 1], {"patience": 9, "divergence_threshold": 8}, 3),
        ([5, float("nan"), 3, 2], {"patience": 9}, 2),
        ([5, float("nan"), 3, 2], {"patience": 9, "check_finite": False}, 4),
        ([5, float("inf"), 3, 2], {"patience": 9, "warmup_epochs": 3}, 2),
    ],
)
def test_the_epoch_it_stops_at(
    module: Any, rows: Any, split: Split, values: list[float], stop: dict[str, Any], epochs: int
) -> None:
    outcome, _, _ = run(module, rows, split, values, **stop)
    assert outcome.error is None
    assert outcome.report.epochs == epochs


def test_warmup_epochs_are_neither_compared_nor_restored(
    module: Any, rows: Any, split: Split
) -> None:
    outcome, script, _ = run(module, rows, split, [1, 5, 4, 4.5], warmup_epochs=2)
    assert outcome.report.best_epoch == 2
    assert torch.equal(flat(module), script.seen[2])


def test_small_improvements_do_not_count_but_their_weights_are_kept(
    module: Any, rows: Any, split: Split
) -> None:
    values = [3, 2.9, 2.8, 2.7, 2.6]
    outcome, script, _ = run(module, rows, split, values, patience=2, min_delta=0.25)
    assert (outcome.report.epochs, outcome.report.best_epoch) == (3, 2)
    assert "by more than 0.25 for 2 checks" in outcome.report.reason
    assert torch.equal(flat(module), script.seen[2])


def test_it_starts_anew_in_every_run(module: Any, rows: Any, split: Split) -> None:
    _, _, early = run(module, rows, split, [5, 1, 9, 9], patience=2)
    script = Script([50.0, 40.0, 30.0])
    parsed = parse_train_kwargs(
        {"max_epochs": 3, "enable_progress_bar": False, "callbacks": [script, early]}
    )
    outcome = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
    assert outcome.report.epochs == 3
    assert outcome.report.best_score == 30.0


def test_it_stops_where_lightnings_own_does(module: Any, rows: Any, split: Split) -> None:
    values = [5.0, 4.0, 4.5, 4.4, 4.3, 1.0]
    ours, _, _ = run(module, rows, split, values, patience=2)
    stock = pl.callbacks.EarlyStopping("script_loss", patience=2)
    parsed = parse_train_kwargs(
        {"max_epochs": 6, "enable_progress_bar": False, "callbacks": [Script(values), stock]}
    )
    theirs = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
    assert ours.report.epochs == theirs.report.epochs == 4


def test_lightnings_own_switches_validation_on(module: Any, rows: Any, split: Split) -> None:
    stock = pl.callbacks.EarlyStopping("elbo_validation", min_delta=1e9, patience=1)
    parsed = parse_train_kwargs({"max_epochs": 6, "enable_progress_bar": False, "callbacks": stock})
    outcome = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
    assert outcome.report.epochs == 2
    assert outcome.report.status == "stopped_early"


@pytest.mark.parametrize(
    ("monitor", "right"), [("elbo_valdation", "elbo_validation"), ("elbo_trian", "elbo_train")]
)
def test_a_misspelt_monitor_fails_before_the_first_step(
    module: Any, rows: Any, split: Split, monitor: str, right: str
) -> None:
    parsed = parse_train_kwargs({"max_epochs": 6, "early_stopping": monitor})
    before = flat(module)
    with pytest.raises(InvalidOptionError, match=f"Did you mean '{right}'"):
        fit(module, rows, split, parsed.options, seed=0)
    assert torch.equal(before, flat(module))


def test_monitoring_validation_without_validation_cells_is_refused(
    module: Any, rows: Any, split: Split
) -> None:
    all_train = Split(train=split.train, validation=split.test, test=split.test)
    with pytest.raises(InvalidOptionError, match="no validation cells.*monitor 'elbo_train'"):
        fit(module, rows, all_train, parse_train_kwargs({"early_stopping": True}).options, seed=0)
    options = parse_train_kwargs(
        {"early_stopping": "elbo_train", "max_epochs": 2, "enable_progress_bar": False}
    ).options
    assert fit(module, rows, all_train, options, seed=0).report.best_epoch == 1


def test_an_unknown_direction_is_asked_for() -> None:
    with pytest.raises(InvalidOptionError, match="mode='min' or mode='max'"):
        EarlyStopping("wombats")


def test_the_name_of_scvi_tools_is_the_same_class() -> None:
    assert LoudEarlyStopping is EarlyStopping


def test_it_works_in_any_lightning_trainer(tmp_path: Any) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.log(
                "train_loss",
                float(abs(self.trainer.current_epoch - 3)),
                on_epoch=True,
                on_step=False,
            )
            return (self.weight - 1).square()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    line = Line()
    early = EarlyStopping("train_loss", patience=2)
    trainer = pl.Trainer(
        max_epochs=20,
        callbacks=[early],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
        log_every_n_steps=1,
    )
    trainer.fit(line, [torch.zeros(1, 1)])
    assert trainer.current_epoch == 6
    assert float(line.weight.detach()) == pytest.approx(1 - 0.8**4)


def test_a_metric_that_nobody_logs_is_an_error_unless_told_otherwise(
    module: Any, rows: Any, split: Split
) -> None:
    kwargs = {"max_epochs": 2, "enable_progress_bar": False}
    for strict in (True, False):
        early = EarlyStopping("wombats", mode="min", strict=strict)
        parsed = parse_train_kwargs({**kwargs, "callbacks": [Script([1.0, 2.0]), early]})
        outcome = fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)
        assert (outcome.error is None) is not strict
    assert outcome.report.epochs == 2
