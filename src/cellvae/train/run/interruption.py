"""Stopping a run early: a callback that raises StopTraining, or Ctrl-C."""

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
from cellvae.train.loop.trainer import stop_after_batch
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

    The hook still runs for the callbacks after it, and the run then ends as if it were complete.
    Each hook that a callback overrides is replaced, on the object, by one that catches the
    exception; wrapping the callbacks would hide their classes from Lightning and from users, who
    look them up by class in `trainer.callbacks`.
    """
    attributes_before = [(callback, dict(vars(callback))) for callback in callbacks]
    for callback in callbacks:
        for name in HOOKS:
            hook = getattr(callback, name)
            on_object = name in vars(callback)
            if on_object or getattr(type(callback), name) is not getattr(pl.Callback, name):
                vars(callback)[name] = functools.partial(call_hook, plan, hook)
    try:
        yield
    finally:
        for callback, attributes in attributes_before:
            for name in HOOKS:
                vars(callback).pop(name, None)
                if name in attributes:
                    vars(callback)[name] = attributes[name]


def call_hook(plan: TrainingPlan, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a hook of a callback; a StopTraining from it stops the run after this batch."""
    try:
        return hook(*args, **kwargs)
    except StopTraining as stop:
        plan.request_stop(str(stop))
        return None


@contextmanager
def restore_sigint_handler() -> Iterator[None]:
    """Context that restores the handler of Ctrl-C, which Lightning disables after an interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class SigintGuard:
    """Context in which Ctrl-C ends a run after its batch, and a second Ctrl-C aborts it.

    Outside the main thread Ctrl-C is handled as without this context, and with several processes by
    :class:`~cellvae.train.run.shared_signals.SharedSignals`.

    Parameters
    ----------
    plan
        Plan of the run.
    trainer
        Its trainer.

    Attributes
    ----------
    n_pressed
        Number of times that Ctrl-C was pressed.
    """

    def __init__(self, plan: TrainingPlan, trainer: pl.Trainer) -> None:
        self.plan = plan
        self.trainer = trainer
        self.n_pressed = 0
        self.handler_before: Any = None
        self.active = (
            threading.current_thread() is threading.main_thread() and trainer.world_size == 1
        )

    def __enter__(self) -> SigintGuard:
        if self.active:
            self.handler_before = signal.getsignal(signal.SIGINT)
            if self.handler_before is signal.SIG_IGN:
                self.active = False
            else:
                signal.signal(signal.SIGINT, self.handle_sigint)
        return self

    def __exit__(self, *error: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.handler_before or signal.SIG_DFL)

    def handle_sigint(self, number: int, frame: FrameType | None) -> None:
        """Stop the run after this batch; abort it at the second Ctrl-C, or during validation."""
        self.n_pressed += 1
        self.plan.run.note_interrupt()
        if self.n_pressed > 1 or self.trainer.validating or not self.plan.run.started:
            raise KeyboardInterrupt
        stop_after_batch(self.trainer)
        logger.info("Ctrl-C: training ends after this batch. Once more aborts it.")
