"""Learning-rate schedules by name, with the arguments that they need."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cellvae.core.options import check_kwargs, check_value
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.train.options.metric_names import metric_mode

Interval = Literal["epoch", "step", "metric"]
SchedulerFactory = Callable[[torch.optim.Optimizer], Any]

NAMED_SCHEDULES: Mapping[str, tuple[type[LRScheduler], Interval]] = {
    "plateau": (ReduceLROnPlateau, "metric"),
    "cosine": (lr_scheduler.CosineAnnealingLR, "epoch"),
    "step": (lr_scheduler.StepLR, "epoch"),
    "exponential": (lr_scheduler.ExponentialLR, "epoch"),
    "onecycle": (lr_scheduler.OneCycleLR, "step"),
}
"""Schedules that have a name, and what drives them by default."""


def default_interval(scheduler: str | SchedulerFactory, monitor: str | None) -> Interval:
    """What drives a schedule by default.

    Raises
    ------
    InvalidOptionError
        If it is a name that no schedule has, or neither a name nor a function.
    """
    if isinstance(scheduler, str):
        if scheduler not in NAMED_SCHEDULES:
            raise InvalidOptionError(
                f"Expected scheduler to be one of {', '.join(NAMED_SCHEDULES)}, or a function "
                "of the "
                f"optimizer; got '{scheduler}'.{did_you_mean(scheduler, NAMED_SCHEDULES)}"
            )
        return NAMED_SCHEDULES[scheduler][1]
    if isinstance(scheduler, LRScheduler) or not callable(scheduler):
        raise InvalidOptionError(
            "Expected scheduler to be a name or a function that makes a schedule for an "
            f"optimizer; got {type(scheduler).__name__}. Give lambda optimizer: "
            "StepLR(optimizer, 10), since the optimizer is made when training starts."
        )
    return "epoch" if monitor is None else "metric"


def check_schedule(
    scheduler: str | SchedulerFactory,
    step_on: Interval,
    monitor: str | None,
    arguments: Mapping[str, Any] | None,
) -> None:
    """Check the arguments of a schedule.

    Raises
    ------
    InvalidOptionError
        If a metric is to drive it and none is named, a name is driven by what it cannot be, an
        argument is missing or of the wrong type, or a function has arguments.
    UnknownOptionError
        If a named schedule does not have an argument.
    """
    default_interval(scheduler, monitor)
    if step_on == "metric" and monitor is None:
        raise InvalidOptionError(
            "Expected monitor to be the name of a metric, such as 'elbo_validation', for a "
            "schedule that a metric drives; got None."
        )
    if not isinstance(scheduler, str):
        if arguments is not None:
            raise InvalidOptionError(
                "Expected arguments only for a schedule with a name; got a function, which can "
                "hand them to the schedule itself."
            )
        return
    cls, _ = NAMED_SCHEDULES[scheduler]
    if (cls is ReduceLROnPlateau) != (step_on == "metric"):
        wanted = "'metric'" if cls is ReduceLROnPlateau else "'epoch' or 'step'"
        raise InvalidOptionError(
            f"Expected interval to be {wanted} for the schedule '{scheduler}'; got '{step_on}'."
        )
    if cls is ReduceLROnPlateau and monitor is not None and "mode" not in (arguments or {}):
        try:
            metric_mode(monitor, "auto")
        except InvalidOptionError as error:
            raise InvalidOptionError(
                f"{error} Here: arguments={{'mode': 'min'}} or 'max'."
            ) from None
    parameters = inspect.signature(cls).parameters
    known = [name for name in parameters if name not in ("optimizer", "last_epoch")]
    check_kwargs(arguments or {}, known, f"The schedule '{scheduler}'")
    from_run = {"cosine": ("T_max",), "onecycle": ("max_lr",)}.get(scheduler, ())
    for name in known:
        needed = parameters[name].default is inspect.Parameter.empty and name not in from_run
        if needed and name not in (arguments or {}):
            raise InvalidOptionError(
                f"Expected arguments={{'{name}': ...}} for the schedule '{scheduler}'; got "
                f"{dict(arguments or {})}."
            )
    check_schedule_arguments(cls, arguments or {})


def check_schedule_arguments(cls: type[LRScheduler], arguments: Mapping[str, Any]) -> None:
    """Check arguments of a schedule against the annotations that torch gives them.

    Raises
    ------
    InvalidOptionError
        For the first that does not fit.
    """
    hints = typing.get_type_hints(cls.__init__)
    for name, value in arguments.items():
        if name in hints:
            check_value(f"arguments['{name}']", value, hints[name])


def make_named_schedule(
    name: str,
    optimizer: torch.optim.Optimizer,
    trainer: pl.Trainer,
    *,
    step_on: Interval,
    monitor: str | None,
    arguments: Mapping[str, Any],
) -> LRScheduler:
    """Schedule by name; arguments left out follow from the length of the run.

    Raises
    ------
    InvalidOptionError
        If the length of the run is needed and not known.
    """
    cls, _ = NAMED_SCHEDULES[name]
    known: dict[str, Any] = {}
    if name == "plateau" and "mode" not in arguments and monitor is not None:
        known["mode"] = metric_mode(monitor, "auto")
    if name == "cosine" and "T_max" not in arguments:
        known["T_max"] = n_total_steps(trainer) if step_on == "step" else n_total_epochs(trainer)
    if name == "onecycle" and "max_lr" not in arguments:
        known["max_lr"] = [float(group["lr"]) for group in optimizer.param_groups]
    if name == "onecycle" and not {"total_steps", "epochs"} & set(arguments):
        by_step = step_on == "step"
        known["total_steps"] = n_total_steps(trainer) if by_step else n_total_epochs(trainer)
    return cls(optimizer, **(known | dict(arguments)))


def n_total_epochs(trainer: pl.Trainer) -> int:
    """Epochs of a run.

    Raises
    ------
    InvalidOptionError
        If the run has no end.
    """
    if trainer.max_epochs is None or trainer.max_epochs < 1:
        raise InvalidOptionError(
            "Expected a run with max_epochs, which the length of the schedule follows from; got "
            "one without end. Give arguments={'T_max': ...}."
        )
    return trainer.max_epochs


def n_total_steps(trainer: pl.Trainer) -> int:
    """Optimizer steps of a run.

    Raises
    ------
    InvalidOptionError
        If the run has no end.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise InvalidOptionError(
            "Expected a run with max_epochs, which the length of the schedule follows from; got "
            "one without end. Give arguments={'total_steps': ...}, or 'T_max' for 'cosine'."
        )
    return int(steps)
