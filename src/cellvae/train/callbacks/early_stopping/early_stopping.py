"""Early stopping that logs its reason and restores the best weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from torch import nn

from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.train.callbacks.early_stopping.best_weights import BestWeights, tracked_module
from cellvae.train.callbacks.early_stopping.criteria import (
    check_stopping_options,
    stopping_criteria,
)
from cellvae.train.callbacks.early_stopping.metric_reader import MetricReader
from cellvae.train.callbacks.early_stopping.stopping_rule import (
    Direction,
    StopDecision,
    StopReason,
    combine_rules,
    make_rules,
)
from cellvae.train.callbacks.early_stopping.warmup_epochs import (
    StoppingWarmup,
    epoch_number,
    epochs_done,
)
from cellvae.train.callbacks.protocols import Group
from cellvae.train.lightning_adapter import make_state_key


class EarlyStopping(LightningEarlyStopping):
    """Stops training when metrics no longer improve, and restores the best weights.

    Can be given to any Lightning trainer. With several metrics, each argument about a metric can
    be a sequence with one value per metric. A metric is checked in the epochs in which it was
    logged, by any hook. Several processes use the mean of their values.

    Parameters
    ----------
    monitor
        Metric that is followed, or several.
    min_delta
        Change that counts as an improvement must be larger than this.
    patience
        Checks without improvement after which training stops. A metric of validation cells is
        checked in the epochs that have validation.
    mode
        Whether lower or higher is better; `"auto"` infers it from the name of the metric.
    combine
        Whether `"any"` of the metrics is enough to stop, or `"all"` must agree at once. The
        last check of a metric counts until its next.
    warmup_epochs
        First epochs of a run (not checks), which are neither compared nor counted; `"kl"` for those
        before the KL weight has its maximum. A metric that is not finite stops in them too.
    restore_best
        Whether the weights of the best epoch are restored at the end, also after an exception;
        otherwise the last ones stay. The first metric decides which is best, or the one named here.
    strict
        Whether it is an error if nothing logs the metric; otherwise the epoch is skipped.
    check_finite
        Whether training stops when the metric is not a finite number; otherwise that counts as no
        improvement.
    baseline
        Value that must be beaten at every check; one that does not counts as no improvement, and
        one that does as an improvement, whatever was reached before. (In Keras the baseline is
        only the first value to beat, and moves as soon as it is.)
    baseline_epochs
        First epochs of a run, in which the baseline need not be beaten.
    stopping_threshold
        Value that is good enough: training stops when the metric is better.
    divergence_threshold
        Value that is hopeless: training stops when the metric is worse.
    patience_epochs
        Epochs without improvement after which training stops, in place of `patience`.
    reset_on_train
        Whether each run resets the counters; otherwise a run of the same network continues them.
    verbose
        Whether every improvement, and every check without one, is logged.

    Raises
    ------
    InvalidOptionError
        If the mode is `"auto"` and the name of a metric does not imply the direction, or if
        arguments contradict each other.
    """

    group: Group = Group.STOPPER

    @check_arguments("mode", "warmup_epochs")
    def __init__(
        self,
        monitor: str | Sequence[str] = "elbo_validation",
        min_delta: float | Sequence[float] = 0.0,
        patience: int | Sequence[int] = 45,
        verbose: bool = False,
        mode: Direction | Sequence[Direction] = "auto",
        *,
        combine: Literal["any", "all"] = "any",
        warmup_epochs: int | Literal["kl"] = 0,
        restore_best: bool | str = True,
        strict: bool = True,
        check_finite: bool | Sequence[bool] = True,
        baseline: float | None | Sequence[float | None] = None,
        baseline_epochs: int | Sequence[int] = 0,
        stopping_threshold: float | None | Sequence[float | None] = None,
        divergence_threshold: float | None | Sequence[float | None] = None,
        patience_epochs: int | None | Sequence[int | None] = None,
        reset_on_train: bool = True,
    ) -> None:
        names = [monitor] if isinstance(monitor, str) else list(monitor)
        check_stopping_options(names, combine, warmup_epochs, restore_best)
        criteria = stopping_criteria(
            names,
            patience=patience,
            patience_epochs=patience_epochs,
            check_finite=check_finite,
            baseline=baseline,
            baseline_epochs=baseline_epochs,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
        )
        self.rules = make_rules(names, mode, min_delta, criteria, verbose=verbose)
        modes = [rule.monitored.mode for rule in self.rules]
        super().__init__(names[0], mode=modes[0], strict=strict, verbose=verbose)
        # Lightning's class has one value of each, and changes the sign of min_delta.
        self.monitor = monitor  # type: ignore[assignment]
        self.mode = modes[0] if isinstance(monitor, str) else modes  # type: ignore[assignment]
        self.min_delta = min_delta  # type: ignore[assignment]
        self.patience = patience  # type: ignore[assignment]
        self.check_finite = check_finite  # type: ignore[assignment]
        self.stopping_threshold = stopping_threshold  # type: ignore[assignment]
        self.divergence_threshold = divergence_threshold  # type: ignore[assignment]
        self.combine = combine
        self.warmup_epochs = warmup_epochs
        self.restore_best = restore_best
        self.baseline = baseline
        self.baseline_epochs = baseline_epochs
        self.patience_epochs = patience_epochs
        self.reset_on_train = reset_on_train
        self.primary = self.rules[names.index(restore_best) if isinstance(restore_best, str) else 0]
        self.best_weights = BestWeights(self.primary.monitored, enabled=bool(restore_best))
        self.warmup = StoppingWarmup(warmup_epochs)
        self.trained: nn.Module | None = None
        self.reader = MetricReader(strict=strict)
        self.clear()

    @property
    def state_key(self) -> str:
        """Name of its state in a checkpoint, which depends on its metrics only."""
        names = self.monitor if isinstance(self.monitor, str) else self.followed_metrics()
        return make_state_key(self, monitor=names, mode=self.mode)

    def followed_metrics(self) -> list[str]:
        """Names of the monitored metrics."""
        return [rule.monitored.name for rule in self.rules]

    def clear(self) -> None:
        """Reset all counters."""
        for rule in self.rules:
            rule.clear()
        self.wait_count, self.last_epoch = 0, -1
        self.best_weights.values = None
        self.best_score = torch.tensor(
            math.inf if self.primary.monitored.mode == "min" else -math.inf
        )
        self.record_decision(None)

    def record_decision(self, decision: StopDecision | None, epoch: int = 0) -> None:
        """Set the reason and epoch of a stop, or none."""
        self.stopped_epoch = epoch
        self.reason = None if decision is None else decision.text
        self.stopping_reason_message = self.reason
        self.stopping_reason = StopReason.NOT_STOPPED if decision is None else decision.reason  # type: ignore[assignment]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reset the state of an earlier run, or only its reason to stop.

        Raises
        ------
        InvalidOptionError
            If the warm-up depends on a KL weight and there is none.
        """
        if stage != "fit":
            return
        self.warmup.check(pl_module)
        if self.reset_on_train or self.trained is not tracked_module(pl_module):
            self.clear()
        self.record_decision(None)
        self.reader.clear()
        for rule in self.rules:
            rule.monitored.seen = rule.decision = None
            rule.verbose = self.verbose and trainer.is_global_zero
        # Counters and weights of another network are never continued.
        self.trained = None if self.reset_on_train else tracked_module(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn if the KL weight will never reach its maximum."""
        self.warmup.warn_if_endless(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that validation metrics are logged; they are checked after the epoch."""
        self.reader.note_validation(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the metrics, and stop the run if a rule says so."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        epoch, any_checked = epoch_number(trainer, pl_module), False
        self.last_epoch = epoch
        for rule in self.rules:
            if not self.reader.is_due(rule.monitored, trainer):
                continue
            any_checked = True
            is_best = rule.update(
                self.reader.read(rule.monitored, trainer),
                epoch,
                n_epochs_before=epochs_done(trainer, pl_module),
                warming_up=self.warmup.is_active(trainer, pl_module),
            )
            if is_best and rule is self.primary:
                self.best_weights.store(pl_module)
        if any_checked:
            self.best_weights.report_best(pl_module, restored=False)
            self.apply_decision(combine_rules(self.rules, self.combine), epoch, trainer)

    def apply_decision(
        self, decision: StopDecision | None, epoch: int, trainer: pl.Trainer
    ) -> None:
        """Stop the trainers of all processes, if that is the decision of any."""
        self.mirror_lightning_attributes()
        if decision is not None:
            self.record_decision(decision, epoch)
        if trainer.strategy.reduce_boolean_decision(decision is not None, all=False):
            trainer.should_stop = True

    def mirror_lightning_attributes(self) -> None:
        """Set the attributes of Lightning's class for the counter and the best value."""
        self.wait_count = self.rules[0].wait_count
        if self.primary.monitored.best is not None:
            self.best_score = torch.tensor(self.primary.monitored.best)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the best weights, and log that and why training stopped."""
        restored = self.best_weights.restore(pl_module)
        if not trainer.is_global_zero:
            return
        if self.reason is not None:
            logger.info("Stopped after epoch %d: %s.", self.stopped_epoch, self.reason)
        best = self.primary.monitored
        if restored and best.best_epoch != self.last_epoch:
            logger.info("Restored best epoch %d (%s=%.6g).", best.best_epoch, best.name, best.best)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restore the best weights; the exception itself is still raised."""
        try:
            self.best_weights.restore(pl_module)
        except Exception as failure:  # must not mask the exception
            logger.warning("The best weights could not be brought back: %s", failure)

    def state_dict(self) -> dict[str, Any]:
        """Counters and the best weights."""
        return {
            "metrics": {rule.monitored.name: rule.state_dict() for rule in self.rules},
            "stopped": self.reason is not None,
            "last_epoch": self.last_epoch,
            "best_weights": self.best_weights.values,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the counters of a checkpoint; arguments stay those of this instance.

        After a run that it had stopped, counters start again.
        """
        for rule in self.rules:
            rule.load_state_dict(state_dict["metrics"][rule.monitored.name])
            if state_dict["stopped"]:
                rule.restart()
        self.last_epoch = state_dict["last_epoch"]
        self.best_weights.values = state_dict["best_weights"]
        self.mirror_lightning_attributes()


LoudEarlyStopping = EarlyStopping
"""The name that scvi-tools gives it."""
