"""Metrics of an epoch as one line of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import lightning.pytorch as pl

from cellvae.core.log import logger
from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.protocols import Group
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.metric_names import canonical_name


class PrintMetrics(pl.Callback):
    """Tells the metrics of an epoch in one line, through the logger of the package.

    Parameters
    ----------
    every_n_epochs
        Epochs between two lines; the last epoch has one in any case.
    metrics
        Names of the metrics, or one name; None for all of the epoch.
    format
        How a number is written, as in a format string.

    Raises
    ------
    InvalidOptionError
        If `every_n_epochs` is below 1, or the format is none for numbers.
    """

    group: ClassVar[Group] = Group.RECORDER

    @check_arguments()
    def __init__(
        self,
        every_n_epochs: int = 1,
        metrics: str | Sequence[str] | None = None,
        format: str = ".4g",
    ) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise InvalidOptionError(
                f"Expected every_n_epochs to be at least 1; got {every_n_epochs}."
            )
        try:
            f"{1.0:{format}}"
        except ValueError as error:
            raise InvalidOptionError(
                f"Expected a format of numbers, such as '.4g'; got '{format}'."
            ) from error
        self.every_n_epochs = every_n_epochs
        self.metrics = [metrics] if isinstance(metrics, str) else metrics and list(metrics)
        self.format = format

    def followed_metrics(self) -> list[str]:
        """Names of the requested metrics."""
        return list(self.metrics or [])

    def on_epoch_complete(self, trainer: pl.Trainer, plan: TrainingPlan) -> None:
        """Tell the metrics of an epoch that is in the history."""
        self.log_metrics(trainer, plan.epoch, plan.history.rows[-1])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the metrics of a module that keeps no history."""
        if not isinstance(pl_module, TrainingPlan):
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.log_metrics(trainer, trainer.current_epoch, values)

    def log_metrics(self, trainer: pl.Trainer, epoch: int, values: Mapping[str, float]) -> None:
        """Print the requested metrics, in their order."""
        if not trainer.is_global_zero:
            return
        done = trainer.current_epoch + 1
        if done % self.every_n_epochs and done != trainer.max_epochs and not trainer.should_stop:
            return
        named = [canonical_name(name, values) for name in self.metrics or values]
        shown = "  ".join(f"{n} {values[n]:{self.format}}" for n in named if n in values)
        logger.info("Epoch %d: %s", epoch, shown or "no metrics")
