"""Metrics of an epoch for a program outside the run, such as a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import lightning.pytorch as pl

from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan


class ReportMetrics(pl.Callback):
    """Gives a function the metrics of each epoch that has a new value of the first of them.

    It is called after the checkpoint of the epoch was written, and may end the run by
    :class:`~cellvae.errors.StopTraining`.

    Parameters
    ----------
    report
        Function of the number of epochs so far, and of the metrics by name.
    metrics
        Names of the metrics; those that have no new value are left out.
    """

    group: ClassVar[Group] = Group.CHECKPOINT

    def __init__(
        self, report: Callable[[int, dict[str, float]], None], metrics: Sequence[str]
    ) -> None:
        super().__init__()
        self.report = report
        self.metrics = tuple(metrics)

    def followed_metrics(self) -> list[str]:
        """Names of the metrics that are reported."""
        return [*self.metrics]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the metrics of the epoch, on the first process only."""
        if not isinstance(pl_module, TrainingPlan) or not trainer.is_global_zero:
            return
        values = {name: pl_module.new_value(name) for name in self.metrics}
        if values[self.metrics[0]] is None:
            return
        known = {name: value for name, value in values.items() if value is not None}
        self.report(pl_module.epoch - pl_module.first_epoch + 1, known)
