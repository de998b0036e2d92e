"""Ctrl-C and SIGTERM in a run of several processes, which end it after the same batch."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from cellvae.core.log import logger
from cellvae.train.loop.trainer import stop_after_batch

if TYPE_CHECKING:
    from types import FrameType

    from cellvae.train.loop.training_plan import TrainingPlan

BATCHES_BETWEEN = 8
"""Batches after which the processes ask each other whether one has received a signal."""
NO_SIGNAL, INTERRUPT, TERMINATE = 0, 1, 2


class SharedSignals(pl.Callback):
    """Ends a run of several processes after the same batch when one receives a signal.

    A terminal sends Ctrl-C to all processes, a scheduler may send SIGTERM to one. A process that
    stopped by itself would leave the others waiting for its gradients, so each notes what it
    received, and every few batches all take the most urgent note of any. Lightning's own handler of
    SIGTERM talks to the other processes as soon as it is called, in the middle of whatever they
    exchange; it is replaced while epochs run.

    Attributes
    ----------
    received
        Signal that this process has received: 0, 1 for Ctrl-C, 2 for SIGTERM.
    terminated
        Whether the run was ended by SIGTERM.
    """

    def __init__(self) -> None:
        self.received = NO_SIGNAL
        self.terminated = False
        self.handlers_before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the handlers of both signals, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in (
            (signal.SIGINT, self.note_interrupt),
            (signal.SIGTERM, self.note_terminate),
        ):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self.handlers_before[number] = before
                signal.signal(number, handler)

    def note_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Note Ctrl-C; the second one aborts this process.

        Raises
        ------
        KeyboardInterrupt
            At the second Ctrl-C.
        """
        if self.received == INTERRUPT:
            raise KeyboardInterrupt
        self.received = max(self.received, INTERRUPT)

    def note_terminate(self, number: int, frame: FrameType | None) -> None:
        """Note SIGTERM."""
        self.received = TERMINATE

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop all processes if one has received a signal, every few batches."""
        if (batch_idx + 1) % BATCHES_BETWEEN == 0 or trainer.is_last_batch:
            self.stop_if_received(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop all processes if one has received a signal, every few batches."""
        if (batch_idx + 1) % BATCHES_BETWEEN == 0:
            self.stop_if_received(trainer, pl_module)

    def stop_if_received(self, trainer: pl.Trainer, plan: TrainingPlan) -> None:
        """Take the most urgent signal of any process, and end the run if there is one.

        Raises
        ------
        SystemExit
            If one has received SIGTERM.
        """
        any_process = trainer.strategy.reduce_boolean_decision
        if any_process(self.received == TERMINATE, all=False):
            self.terminated = True
            raise SystemExit(128 + signal.SIGTERM)
        if any_process(self.received == INTERRUPT, all=False) and not plan.run.interrupted:
            plan.run.note_interrupt()
            stop_after_batch(trainer)
            if trainer.is_global_zero:
                logger.info("Ctrl-C: training ends after this batch. Once more aborts it.")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the handlers."""
        for number, handler in self.handlers_before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self.handlers_before = {}
