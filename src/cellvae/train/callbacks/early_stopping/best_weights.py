"""Weights of the best epoch so far, for restoring them at the end."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor, nn

from cellvae.train.callbacks.monitored_metric import MonitoredMetric
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.records.run_state import BestEpoch


class BestWeights:
    """The weights of the epoch in which a metric was best.

    Parameters
    ----------
    monitored
        The metric.
    enabled
        Whether to copy weights; otherwise only the best epoch is reported.
    """

    def __init__(self, monitored: MonitoredMetric, *, enabled: bool) -> None:
        self.monitored = monitored
        self.enabled = enabled
        self.values: dict[str, Tensor] | None = None

    def store(self, pl_module: pl.LightningModule) -> None:
        """Copy the current weights: this epoch is the best so far."""
        if self.enabled:
            weights = tracked_module(pl_module).state_dict()
            self.values = {name: value.detach().clone() for name, value in weights.items()}

    def restore(self, pl_module: pl.LightningModule) -> bool:
        """Load the best weights into the network; returns whether there are any."""
        if self.values is None or not self.enabled:
            return False
        tracked_module(pl_module).load_state_dict(self.values)
        self.report_best(pl_module, restored=True)
        return True

    def report_best(self, pl_module: pl.LightningModule, *, restored: bool) -> None:
        """Record the best epoch so far in the run of a plan."""
        score, epoch = self.monitored.best, self.monitored.best_epoch
        if isinstance(pl_module, TrainingPlan) and score is not None and epoch is not None:
            name = self.monitored.name
            pl_module.run.note_best(
                BestEpoch(monitor=name, epoch=epoch, score=score, restored=restored)
            )


def tracked_module(pl_module: pl.LightningModule) -> nn.Module:
    """Network whose weights are copied: the module of a plan, else the LightningModule itself."""
    return pl_module.module if isinstance(pl_module, TrainingPlan) else pl_module
