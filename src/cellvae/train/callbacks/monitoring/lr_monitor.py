"""Learning rate of every epoch, among the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch

from cellvae.core.options import check_arguments
from cellvae.train.callbacks.protocols import Group


class LRMonitor(pl.Callback):
    """Logs the learning rate that each epoch began with, into the history too; needs no logger.

    The names are those of Lightning: `lr-Adam`; `lr-Adam/pg1`, `lr-Adam/pg2` for an optimizer of
    several groups of parameters (or their own names); `lr-Adam-1` for a second optimizer of a kind.

    Parameters
    ----------
    log_momentum
        Whether the momentum is logged too (`lr-Adam-momentum`), for Adam its first beta.
    log_weight_decay
        Whether the weight decay is logged too (`lr-Adam-weight_decay`).

    Examples
    --------
    >>> from cellvae.train.callbacks.monitoring.lr_monitor import LRMonitor
    >>> LRMonitor(log_momentum=True).log_momentum
    True
    """

    group = Group.RECORDER

    @check_arguments()
    def __init__(self, log_momentum: bool = False, log_weight_decay: bool = False) -> None:
        super().__init__()
        self.log_momentum = log_momentum
        self.log_weight_decay = log_weight_decay
        self.values: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget an earlier run."""
        self.values = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rates that this epoch uses; schedules change them before it ends."""
        self.values = {}
        for name, group in named_param_groups(trainer):
            self.values[name] = float(group["lr"])
            if self.log_momentum:
                betas = group.get("betas") or (group.get("momentum", 0.0),)
                self.values[f"{name}-momentum"] = float(betas[0])
            if self.log_weight_decay:
                self.values[f"{name}-weight_decay"] = float(group.get("weight_decay", 0.0))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the rates of this epoch."""
        for name, value in self.values.items():
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1)


RecordLearningRate = LRMonitor
"""Name that the monitor had first."""


def named_param_groups(trainer: pl.Trainer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Groups of parameters of all optimizers, each with the name of its rate."""
    given = {id(c.scheduler.optimizer): c.name for c in trainer.lr_scheduler_configs}
    count: Counter[str] = Counter()
    for optimizer in trainer.optimizers:
        kind = given.get(id(optimizer)) or f"lr-{type(optimizer).__name__}"
        name = f"{kind}-{count[kind]}" if count[kind] else kind
        count[kind] += 1
        groups = optimizer.param_groups
        if len(groups) == 1:
            yield name, groups[0]
            continue
        own = param_group_names(optimizer)
        for group, part in zip(groups, own, strict=True):
            yield f"{name}/{part}", group


def param_group_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the groups of an optimizer: their own where all differ, else pg1, pg2, ..."""
    own = [group.get("name") for group in optimizer.param_groups]
    if all(isinstance(name, str) for name in own) and len(set(own)) == len(own):
        return [str(name) for name in own]
    return [f"pg{i + 1}" for i in range(len(own))]
