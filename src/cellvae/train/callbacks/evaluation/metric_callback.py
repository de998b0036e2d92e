"""Metrics of torchmetrics, updated batch by batch in the course of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl

from cellvae.contracts import Module, StepBlock
from cellvae.core.options import check_arguments
from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.evaluation.cell_selection import (
    cast_batch,
    isolated_eval_mode,
    require_training_plan,
)
from cellvae.train.callbacks.protocols import Group

if TYPE_CHECKING:
    from torchmetrics import Metric

Prediction = Callable[[Module[Any], Any], tuple[Any, ...]]


class MetricCallback(pl.Callback):
    """Logs metrics of torchmetrics over the cells of an epoch, as `<name>_<on>`.

    Metrics are moved to the device when the run starts, updated after each batch, and computed and
    reset when the epoch ends. The network is in eval mode, without gradients and with random
    numbers of its own, so that training is not changed.

    Parameters
    ----------
    metrics
        Metrics by name; each computes one number. They are used as they are, and reset.
    on
        Cells of the metric: validation or training cells.
    prediction
        Gives what `update` of each metric takes, from the network and a batch of cells; a tuple.
    prefix
        What the names of logged metrics start with, before a slash; empty for nothing.

    Raises
    ------
    InvalidOptionError
        If an argument has a value that it cannot take.

    Examples
    --------
    >>> from torchmetrics import MeanMetric
    >>> from cellvae.train.callbacks.evaluation.metric_callback import MetricCallback
    >>> def depth(module, batch):
    ...     return (batch.counts.sum(-1),)
    >>> MetricCallback({"depth": MeanMetric()}, prediction=depth).produced_metrics()
    ['depth_validation']
    """

    group: Group = Group.PRODUCER

    @check_arguments()
    def __init__(
        self,
        metrics: Mapping[str, Metric],
        *,
        on: Literal["validation", "train"] = "validation",
        prediction: Prediction,
        prefix: str = "",
    ) -> None:
        super().__init__()
        if on not in ("validation", "train"):
            raise InvalidOptionError(f"Expected on to be 'validation' or 'train'; got {on!r}.")
        if not metrics:
            raise InvalidOptionError(
                "Expected metrics by name, such as {'mse': MeanSquaredError()}; got none."
            )
        if not callable(prediction):
            raise InvalidOptionError(
                "Expected prediction to be a function of the network and a batch; got "
                f"{prediction!r:.80}."
            )
        self.metrics = dict(metrics)
        self.on = on
        self.prediction = prediction
        self.prefix = prefix
        self.n_updates = 0

    @property
    def state_key(self) -> str:
        """Name of the state."""
        return f"{type(self).__qualname__}[{', '.join(self.produced_metrics())}]"

    def metric_key(self, name: str) -> str:
        """Name under which a metric is logged."""
        return f"{self.prefix}/{name}_{self.on}" if self.prefix else f"{name}_{self.on}"

    def produced_metrics(self) -> list[str]:
        """Names of the metrics that are logged."""
        return [self.metric_key(name) for name in self.metrics]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the metrics to the device, and forget an earlier run."""
        for metric in self.metrics.values():
            metric.to(pl_module.device)
        self.reset()

    def reset(self) -> None:
        """Forget all cells."""
        self.n_updates = 0
        for metric in self.metrics.values():
            metric.reset()

    def update(self, pl_module: pl.LightningModule, block: StepBlock) -> None:
        """Add the cells of each step of a block."""
        plan = require_training_plan(pl_module, self)
        with isolated_eval_mode(plan.module, plan.seed):
            for step in block.steps:
                batch = cast_batch(plan, block.rows.take(step))
                values = self.prediction(plan.module, batch)
                if not isinstance(values, tuple):
                    raise InvalidOptionError(
                        "Expected prediction to give a tuple, what update() of the metrics takes; "
                        f"got {type(values).__name__}. Return (values,) for a single one."
                    )
                for metric in self.metrics.values():
                    metric.update(*values)
                self.n_updates += 1

    def log_values(self, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch, still on the device, and reset them."""
        if self.n_updates:
            for name, metric in self.metrics.items():
                value = metric.compute()
                if value.numel() != 1:
                    raise InvalidOptionError(
                        f"Expected the metric '{name}' to compute one number; got shape "
                        f"{tuple(value.shape)}. Let it average over classes."
                    )
                pl_module.log(
                    self.metric_key(name),
                    value.detach().clone().reshape(()),
                    on_step=False,
                    on_epoch=True,
                    batch_size=1,
                    sync_dist=pl_module.trainer.world_size > 1,
                )
        self.reset()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the metrics, also after an interrupted epoch."""
        self.reset()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add a batch that was trained on."""
        if self.on == "train":
            self.update(pl_module, batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of cells that were trained on."""
        if self.on == "train":
            self.log_values(pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch of validation cells."""
        if self.on == "validation" and not trainer.sanity_checking:
            self.update(pl_module, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of validation cells."""
        if self.on == "validation" and not trainer.sanity_checking:
            self.log_values(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the metrics back from the device."""
        for metric in self.metrics.values():
            metric.cpu()
