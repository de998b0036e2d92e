"""Reading of monitored metrics at the end of an epoch, the same in every process."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import torch

from cellvae.train.callbacks.monitored_metric import MonitoredMetric
from cellvae.train.callbacks.protocols import ProducesMetrics
from cellvae.train.options.metric_names import canonical_name


class MetricReader:
    """Reads monitored metrics of a trainer once each time that they are logged.

    Parameters
    ----------
    strict
        Whether a metric that nothing logs is an error.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.clear()

    def clear(self) -> None:
        """Forget the validations of an earlier run."""
        self.validated = False

    def note_validation(self, trainer: pl.Trainer) -> None:
        """Note that validation has logged its metrics; sanity checks do not count."""
        self.validated = self.validated or not trainer.sanity_checking

    def is_due(self, monitored: MonitoredMetric, trainer: pl.Trainer) -> bool:
        """Whether to read a metric at the end of this epoch.

        It is if the metric has been logged since it was last read. A metric that was never logged
        is read only in strict mode, which raises an error, and not as long as the first validation
        or a callback that announces the metric may still log it.
        """
        metrics = trainer.callback_metrics
        if monitored.is_logged(metrics):
            return monitored.is_refreshed(metrics)
        callbacks: Sequence[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        announced = [
            n for c in callbacks if isinstance(c, ProducesMetrics) for n in c.produced_metrics()
        ]
        awaits_validation = trainer.enable_validation and not self.validated
        is_announced = canonical_name(monitored.name, announced) in announced
        return self.strict and not awaits_validation and not is_announced

    def read(self, monitored: MonitoredMetric, trainer: pl.Trainer) -> float:
        """Value of a metric, averaged over all processes."""
        value = monitored.read(trainer.callback_metrics)
        if trainer.world_size == 1:
            return value
        found = torch.tensor(value, device=trainer.strategy.root_device)
        return float(trainer.strategy.reduce(found, reduce_op="mean"))
