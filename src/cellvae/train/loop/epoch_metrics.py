"""KL weight and metrics of an epoch; metrics are summed on the device and read once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Loss, Module
from cellvae.train.loop.loss_sums import LossSums
from cellvae.train.options.kl_warmup import KLWarmup
from cellvae.train.options.metric_names import canonical_name, is_validation, metric_names
from cellvae.train.records.history import History
from cellvae.train.records.run_state import RunState


class EpochMetricsModule(pl.LightningModule):
    """LightningModule that knows which metrics were measured in the current epoch.

    Parameters
    ----------
    module
        The network and its loss.
    run
        Facts of the run.
    history
        Metrics of earlier runs.
    warmup
        KL weight by epoch or step.
    first_epoch, first_step
        Epochs and optimizer steps of earlier runs; by default the epochs in the history.
    n_train
        Training cells, by which the global KL is divided, in validation too.

    Attributes
    ----------
    train_loss_sums, validation_loss_sums
        Sums of the losses over the epoch.
    has_extra_epoch
        Whether this epoch only updates statistics and trains nothing.
    """

    def __init__(
        self,
        module: Module[Any],
        *,
        run: RunState | None,
        history: History | None,
        warmup: KLWarmup,
        first_epoch: int | None,
        first_step: int,
        n_train: int | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.run = RunState() if run is None else run
        self.history = History() if history is None else history
        self.first_epoch = self.history.next_epoch if first_epoch is None else first_epoch
        self.first_step = first_step
        self.warmup = warmup
        self.epoch_logged: dict[str, int] = {}
        self.validated = self.train_logged = self.has_extra_epoch = False
        self.stops_at_nan = False
        self.train_loss_sums = LossSums(
            "train", module.metrics_from_sums, n_train, module.loss_parts
        )
        self.validation_loss_sums = LossSums(
            "validation", module.metrics_from_sums, n_train, module.loss_parts
        )
        weight = torch.tensor(warmup.weight_at(self.first_epoch, first_step))
        self.register_buffer("kl_weight", weight, persistent=False)
        self.kl_weight: Float[Tensor, ""]

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this name about forty times a step; torch's own __setattr__ is slow.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def epoch(self) -> int:
        """Number of the current epoch, counted over all runs of the model."""
        return self.first_epoch + self.current_epoch

    @property
    def n_steps(self) -> int:
        """Optimizer steps made in this run."""
        return self.global_step

    @property
    def known_metrics(self) -> list[str]:
        """Names of all metrics that the plan measures."""
        module = self.module
        extra, parts = module.extra_metric_names, module.loss_parts
        return [
            *metric_names("train", extra, parts),
            *metric_names("validation", extra, parts),
            "kl_weight",
        ]

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log a metric as Lightning does, and note the epoch of its value."""
        self.epoch_logged[name] = self.epoch
        super().log(name, value, *args, **kwargs)

    def is_fresh(self, name: str) -> bool:
        """Whether a metric was logged in the current epoch (its value may be of an earlier one)."""
        if self.has_extra_epoch:
            return False
        if name in self.epoch_logged:
            return self.epoch_logged[name] == self.epoch
        return self.validated or not is_validation(name)

    def new_value(self, name: str) -> float | None:
        """Value of a metric that was measured in this epoch, in any spelling; None otherwise."""
        metrics = self.trainer.callback_metrics
        name = canonical_name(name, metrics)
        return float(metrics[name]) if name in metrics and self.is_fresh(name) else None

    def set_warmup(self, warmup: KLWarmup) -> None:
        """Set the KL weight by epoch or step from now on."""
        self.warmup = warmup

    def set_kl_weight(self) -> None:
        """Set the KL weight of this epoch and step, counted over all runs."""
        weight = self.warmup.weight_at(self.epoch, self.first_step + self.global_step)
        self.kl_weight.fill_(weight)
        self.on_kl_weight(weight)

    def on_kl_weight(self, weight: float) -> None:
        """Note a new KL weight."""

    def update_kl_weight(self) -> None:
        """Set the KL weight of a step, if it changes from step to step."""
        if self.warmup.by_step:
            self.set_kl_weight()

    def begin_epoch_metrics(self, *, is_extra: bool) -> None:
        """Clear the sums of the training loss, and which metrics of the epoch were logged."""
        self.train_loss_sums.clear()
        self.validated = self.train_logged = False
        self.has_extra_epoch = is_extra

    def log_train_metrics(self) -> None:
        """Log the training metrics of the epoch."""
        self.train_logged = True
        self.log_loss_sums(self.train_loss_sums)
        self.log("kl_weight", self.kl_weight.clone(), on_step=False, on_epoch=True, batch_size=1)

    def log_validation_metrics(self) -> None:
        """Log the validation metrics, if there were validation cells."""
        if self.validation_loss_sums.n_cells:
            self.log_loss_sums(self.validation_loss_sums)
            self.validated = not self.trainer.sanity_checking

    def record_epoch_metrics(self) -> None:
        """Read the metrics of this epoch, with one read per device, into the history."""
        if not self.train_logged:
            # The epoch ended early (max_steps, a time limit): no batch was known as its last.
            self.log_loss_sums(self.train_loss_sums)
        metrics = self.trainer.callback_metrics
        names = [name for name in metrics if self.is_fresh(name)]
        values = dict(zip(names, read_metrics([metrics[n] for n in names]), strict=True))
        self.history.add(self.epoch, values)
        self.stop_if_loss_not_finite(values)

    def stop_at_nan(self, *, enabled: bool) -> None:
        """Whether a loss that is not finite stops the run and is left out of the metrics."""
        self.stops_at_nan = self.train_loss_sums.only_finite = enabled

    def stop_if_loss_not_finite(self, metrics: Mapping[str, float]) -> None:
        """Stop the run if a loss of the epoch is not finite."""
        for what, name in (("training", "train_loss"), ("validation", "validation_loss")):
            if not math.isfinite(metrics.get(name, 0.0)) and self.stops_at_nan:
                self.run.note_nan(f"the {what} loss was {metrics[name]} in epoch {self.epoch}")
                self.trainer.should_stop = True

    def log_step(self, loss: Loss) -> None:
        """Log the loss and KL weight of one step."""
        n = loss.n_cells
        step: dict[str, Any] = {"on_step": True, "on_epoch": False, "batch_size": n}
        self.log("train_loss_step", loss.loss.detach(), **step)
        self.log("kl_weight_step", self.kl_weight, **step)

    def log_loss_sums(self, loss_sums: LossSums) -> None:
        """Log the means of an epoch over all processes; they stay on the device."""
        if self.trainer.world_size > 1 and loss_sums.sums is not None:
            reduce = self.trainer.strategy.reduce
            loss_sums.sums = reduce(loss_sums.sums, reduce_op="sum")
            loss_sums.extra_sums = tuple(
                reduce(part, reduce_op="sum") for part in loss_sums.extra_sums
            )
        self.log_dict(
            {k: v.float() for k, v in loss_sums.means().items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
        )


def read_metrics(values: list[Any]) -> list[float]:
    """Metrics as Python numbers, with one read per device."""
    tensors = [torch.as_tensor(value).detach().double().reshape(()) for value in values]
    numbers = [0.0] * len(tensors)
    for device in {tensor.device for tensor in tensors}:
        indices = [i for i, tensor in enumerate(tensors) if tensor.device == device]
        on_device = torch.stack([tensors[i] for i in indices]).tolist()
        for index, number in zip(indices, on_device, strict=True):
            numbers[index] = number
    return numbers
