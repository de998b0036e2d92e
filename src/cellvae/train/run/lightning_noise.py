"""What Lightning does to the process during a run: what it says, and what it does to Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Context in which Lightning says only what needs saying."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        for text in (
            r".*defined a `validation_step` but have no `val_dataloader`",
            r".*You have overridden `transfer_batch_to_device`",
            r".*isinstance\(treespec, LeafSpec\)` is deprecated",
            r".*`training_step` returned `None`",
            r"Found .* module\(s\) in eval mode at the start of training",
        ):
            warnings.filterwarnings("ignore", text)
        for each in loggers:
            each.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


@contextmanager
def restore_sigint_handler() -> Iterator[None]:
    """Context that puts the handler of Ctrl-C back; Lightning turns it off after an interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
