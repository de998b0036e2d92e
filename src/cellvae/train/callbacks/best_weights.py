"""The weights of the best epoch so far, kept to be brought back."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor, nn

from cellvae.train.callbacks.monitored import Monitored
from cellvae.train.plan import Best, Plan


class BestWeights:
    """The weights of the epoch in which a metric was best.

    Parameters
    ----------
    monitored
        The metric.
    wanted
        Whether weights are kept, or only told which epoch was best.
    """

    def __init__(self, monitored: Monitored, *, wanted: bool) -> None:
        self.monitored = monitored
        self.wanted = wanted
        self.values: dict[str, Tensor] | None = None

    def keep(self, pl_module: pl.LightningModule) -> None:
        """Keep the weights as they are now: this epoch is the best so far."""
        if self.wanted:
            weights = network(pl_module).state_dict()
            self.values = {name: value.detach().clone() for name, value in weights.items()}

    def put_back(self, pl_module: pl.LightningModule) -> bool:
        """Put the weights into the network, if there are any; tell whether there are."""
        if self.values is None or not self.wanted:
            return False
        network(pl_module).load_state_dict(self.values)
        self.note(pl_module, restored=True)
        return True

    def note(self, pl_module: pl.LightningModule, *, restored: bool) -> None:
        """Tell a plan which epoch is the best so far."""
        score, epoch = self.monitored.best, self.monitored.best_epoch
        if isinstance(pl_module, Plan) and score is not None and epoch is not None:
            name = self.monitored.name
            pl_module.note_best(Best(monitor=name, epoch=epoch, score=score, restored=restored))


def network(pl_module: pl.LightningModule) -> nn.Module:
    """The network whose weights are kept: the module of a plan, else the LightningModule itself."""
    return pl_module.module if isinstance(pl_module, Plan) else pl_module
