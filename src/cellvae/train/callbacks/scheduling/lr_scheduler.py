"""Learning-rate schedules of torch, driven by epochs, steps or a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim.lr_scheduler import LRScheduler

from cellvae.core.options import check_arguments, check_value
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.callbacks.protocols import Group
from cellvae.train.callbacks.scheduling.named_schedules import (
    Interval,
    SchedulerFactory,
    check_schedule,
    default_interval,
    make_named_schedule,
)
from cellvae.train.callbacks.scheduling.optimizer_settings import ParamGroupSettings
from cellvae.train.loop.training_plan import TrainingPlan
from cellvae.train.options.metric_names import canonical_name, is_validation, warn_never_measured


class LRSchedulerCallback(pl.Callback):
    """Drives a learning-rate schedule of torch.

    A schedule of epochs moves after each epoch, one of steps after each step of the optimizer, and
    one of a metric after each epoch in which the metric was measured. When the run ends, the
    optimizer has the settings that it had before.

    Parameters
    ----------
    scheduler
        Function that makes a schedule for an optimizer, such as
        `lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.95**epoch)`; or a name: `"plateau"`,
        `"cosine"` (down to `eta_min` at the end of the run), `"step"`, `"exponential"` or
        `"onecycle"` (over all steps of the run, up to `max_lr`, by default the rate of the
        optimizer).
    interval
        What drives it: `"epoch"`, `"step"` or `"metric"`. By default that of the name; for a
        function the metric if there is a `monitor`, else the epoch.
    monitor
        Metric that drives it.
    optimizer
        Number or class name of the optimizer, where there are several.
    arguments
        Arguments of a schedule that has a name, such as `{"gamma": 0.95}`.

    Raises
    ------
    InvalidOptionError
        If a value is not one that the argument can take, a schedule of a metric has no `monitor`,
        or there is no such optimizer.
    UnknownOptionError
        If `arguments` has a name that the schedule does not have.

    Examples
    --------
    >>> from cellvae.train.callbacks.scheduling.lr_scheduler import LRSchedulerCallback
    >>> LRSchedulerCallback("exponential", arguments={"gamma": 0.95}).step_on
    'epoch'
    """

    # After the callbacks that log the metrics of an epoch.
    group = Group.RECORDER

    @check_arguments("scheduler")
    def __init__(
        self,
        scheduler: str | SchedulerFactory,
        *,
        interval: Interval | None = None,
        monitor: str | None = None,
        optimizer: int | str = 0,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.interval = check_value("interval", interval, Interval | None)
        self.monitor = monitor
        self.optimizer = check_value("optimizer", optimizer, int | str)
        self.arguments = None if arguments is None else dict(arguments)
        self.step_on: Interval = self.interval or default_interval(scheduler, monitor)
        check_schedule(scheduler, self.step_on, monitor, self.arguments)
        self.clear()

    def clear(self) -> None:
        """Reset the state of an earlier run."""
        self.schedule: LRScheduler | None = None
        self.target: torch.optim.Optimizer | None = None
        self.before: ParamGroupSettings | None = None
        self.loaded: dict[str, Any] | None = None
        self.n_steps = 0
        self.validated = False

    @property
    def supports_blocks(self) -> bool:
        """Whether the schedule does not move within an epoch."""
        return self.step_on != "step"

    def followed_metrics(self) -> Sequence[str]:
        """Metric that drives the schedule, if one does."""
        return [self.monitor] if self.monitor is not None and self.step_on == "metric" else []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reset the state of an earlier run."""
        self.clear()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the schedule, once the state of the optimizer is loaded."""
        target = self.target = select_optimizer(trainer.optimizers, self.optimizer)
        self.n_steps = trainer.global_step
        now = ParamGroupSettings.from_optimizer(target)
        if self.loaded is not None:
            self.before = ParamGroupSettings(self.loaded["before"])
            # As at the start of the run, since a schedule takes its first rate from there.
            self.before.restore(target)
            self.schedule = self.make_scheduler(target, trainer)
            self.schedule.load_state_dict(self.loaded["schedule"])
            now.restore(target)
            self.loaded = None
        else:
            self.before = now
            self.schedule = self.make_scheduler(target, trainer)

    def make_scheduler(self, optimizer: torch.optim.Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """Schedule for an optimizer.

        Raises
        ------
        InvalidOptionError
            If the function made something else, or the length of the run is not known.
        """
        if isinstance(self.scheduler, str):
            return make_named_schedule(
                self.scheduler,
                optimizer,
                trainer,
                step_on=self.step_on,
                monitor=self.monitor,
                arguments=self.arguments or {},
            )
        schedule = self.scheduler(optimizer)
        if not isinstance(schedule, LRScheduler):
            raise InvalidOptionError(
                "Expected scheduler to be a function of an optimizer that returns a schedule of "
                f"torch.optim.lr_scheduler; it returned {schedule!r:.100}."
            )
        return schedule

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move a schedule of steps if the optimizer made one."""
        if self.step_on == "step" and trainer.global_step > self.n_steps:
            assert self.schedule is not None
            self.n_steps = trainer.global_step
            self.schedule.step()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that validation metrics are new."""
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move a schedule of epochs, or one of a metric that was measured in this epoch."""
        assert self.schedule is not None
        if self.step_on == "epoch":
            self.schedule.step()
        elif self.step_on == "metric":
            value = self.new_value(trainer, pl_module)
            if value is not None:
                self.schedule.step(value)  # type: ignore[arg-type]
        self.validated = False

    def new_value(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> float | None:
        """Value of the metric if it was measured in this epoch, else None."""
        assert self.monitor is not None
        if isinstance(pl_module, TrainingPlan):
            return pl_module.new_value(self.monitor)
        metrics = trainer.callback_metrics
        name = canonical_name(self.monitor, metrics)
        is_new = name in metrics and (self.validated or not is_validation(name))
        return float(metrics[name]) if is_new else None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the optimizer's settings; warn if the metric was never logged."""
        self.restore_settings()
        never = self.schedule is not None and self.schedule.last_epoch == 0
        if never and self.step_on == "metric" and self.monitor is not None:
            warn_never_measured(self.monitor, trainer.callback_metrics)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Restore the settings that the optimizer had before the run."""
        self.restore_settings()

    def restore_settings(self) -> None:
        """Restore the settings that the optimizer had before the run."""
        if self.target is not None and self.before is not None:
            self.before.restore(self.target)

    def state_dict(self) -> dict[str, Any]:
        """State of the schedule, and the settings of the optimizer before the run."""
        if self.schedule is None or self.before is None:
            return {}
        plain = {k: v for k, v in self.schedule.state_dict().items() if not callable(v)}
        return {"schedule": plain, "before": self.before.values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a schedule when the run starts."""
        self.loaded = dict(state_dict)


def select_optimizer(
    optimizers: Sequence[torch.optim.Optimizer], which: int | str
) -> torch.optim.Optimizer:
    """Optimizer with a number or of a class.

    Raises
    ------
    InvalidOptionError
        If there is none, or several of the class.
    """
    names = [type(optimizer).__name__ for optimizer in optimizers]
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    if isinstance(which, str):
        if names.count(which) == 1:
            return optimizers[names.index(which)]
        many = "several" if which in names else "none"
        raise InvalidOptionError(
            f"Expected optimizer to name one optimizer; got '{which}', of which there are {many}."
            f"{did_you_mean(which, set(names) - {which})} There are: {listed}."
        )
    if not 0 <= which < len(optimizers):
        raise InvalidOptionError(
            f"Expected optimizer to be the number of an optimizer; got {which}. "
            f"There are: {listed}."
        )
    return optimizers[which]
