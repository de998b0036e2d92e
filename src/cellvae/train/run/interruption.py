"""How a run is stopped from inside: by a callback that raises StopTraining, or by Ctrl-C."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from cellvae.core.log import logger
from cellvae.errors import StopTraining
from cellvae.train.loop.training_plan import TrainingPlan

if TYPE_CHECKING:
    from types import FrameType

HOOKS = tuple(
    name
    for name in dir(pl.Callback)
    if name.startswith("on_")
    and name not in ("on_exception", "on_save_checkpoint", "on_load_checkpoint")
)


@contextmanager
def catch_stop_training(plan: TrainingPlan, callbacks: Sequence[pl.Callback]) -> Iterator[None]:
    """Context in which a callback may raise StopTraining in any hook.

    The callbacks after it get the hook too, and the run then ends as if it were complete. For
    that each hook that a callback has is replaced by one that looks for the exception.
    """
    before = [(callback, dict(vars(callback))) for callback in callbacks]
    for callback in callbacks:
        for name in HOOKS:
            hook = getattr(callback, name)
            own = name in vars(callback)
            if own or getattr(type(callback), name) is not getattr(pl.Callback, name):
                vars(callback)[name] = functools.partial(call_hook, plan, hook)
    try:
        yield
    finally:
        for callback, attributes in before:
            for name in HOOKS:
                vars(callback).pop(name, None)
                if name in attributes:
                    vars(callback)[name] = attributes[name]


def call_hook(plan: TrainingPlan, hook: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
    """Call a hook; a StopTraining ends the run after the hook has reached all callbacks."""
    try:
        return hook(*arguments, **words)
    except StopTraining as stop:
        stop_for_reason(plan, str(stop))
        return None


def stop_for_reason(plan: TrainingPlan, reason: str) -> None:
    """End a run in good order, for a reason that its report will give."""
    plan.stop_reason = plan.stop_reason or reason or "a callback asked for it"
    request_stop(plan.trainer)


def request_stop(trainer: pl.Trainer) -> None:
    """Make a trainer stop after this batch, whatever it was told about least epochs and steps."""
    trainer.should_stop = True
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None


class SigintGuard:
    """Context in which Ctrl-C ends a run after its batch, and a second Ctrl-C aborts it.

    Outside the main thread, and where several processes train together, Ctrl-C keeps its meaning.

    Parameters
    ----------
    plan
        Plan of the run.
    trainer
        Its trainer.

    Attributes
    ----------
    n_pressed
        How often Ctrl-C was pressed.
    """

    def __init__(self, plan: TrainingPlan, trainer: pl.Trainer) -> None:
        self.plan = plan
        self.trainer = trainer
        self.n_pressed = 0
        self.before: Any = None
        self.active = (
            threading.current_thread() is threading.main_thread() and trainer.world_size == 1
        )

    def __enter__(self) -> SigintGuard:
        if self.active:
            self.before = signal.getsignal(signal.SIGINT)
            if self.before is signal.SIG_IGN:
                self.active = False
            else:
                signal.signal(signal.SIGINT, self.handle_sigint)
        return self

    def __exit__(self, *error: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.before or signal.SIG_DFL)

    def handle_sigint(self, number: int, frame: FrameType | None) -> None:
        """Ask the run to end; abort it if it was asked before, or while it validates."""
        self.n_pressed += 1
        self.plan.interrupted = True
        if self.n_pressed > 1 or self.trainer.validating or not self.plan.started:
            raise KeyboardInterrupt
        request_stop(self.trainer)
        logger.info("Ctrl-C: training ends after this batch. Once more aborts it.")
