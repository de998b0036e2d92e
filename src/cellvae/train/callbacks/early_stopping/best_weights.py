"""The weights of the best epoch so far, kept to be brought back."""

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
    wanted
        Whether weights are kept, or only told which epoch was best.
    """

    def __init__(self, monitored: MonitoredMetric, *, enabled: bool) -> None:
        self.monitored = monitored
        self.enabled = enabled
        self.values: dict[str, Tensor] | None = None

    def store(self, pl_module: pl.LightningModule) -> None:
        """Keep the weights as they are now: this epoch is the best so far."""
        if self.enabled:
            weights = tracked_module(pl_module).state_dict()
            self.values = {name: value.detach().clone() for name, value in weights.items()}

    def restore(self, pl_module: pl.LightningModule) -> bool:
        """Put the weights into the network, if there are any; tell whether there are."""
        if self.values is None or not self.enabled:
            return False
        tracked_module(pl_module).load_state_dict(self.values)
        self.report_best(pl_module, restored=True)
        return True

    def report_best(self, pl_module: pl.LightningModule, *, restored: bool) -> None:
        """Tell a plan which epoch is the best so far."""
        score, epoch = self.monitored.best, self.monitored.best_epoch
        if isinstance(pl_module, TrainingPlan) and score is not None and epoch is not None:
            name = self.monitored.name
            pl_module.run.note_best(
                BestEpoch(monitor=name, epoch=epoch, score=score, restored=restored)
            )


def tracked_module(pl_module: pl.LightningModule) -> nn.Module:
    """The network whose weights are kept: the module of a plan, else the LightningModule itself."""
    return pl_module.module if isinstance(pl_module, TrainingPlan) else pl_module
