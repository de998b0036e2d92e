"""Lightning with less noise: no routine messages during a run, and a logger that writes nothing."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.callbacks import Callback, DeviceStatsMonitor, LearningRateMonitor
from lightning.pytorch.loggers import Logger

IGNORED_WARNINGS = (
    r".*defined a `validation_step` but have no `val_dataloader`",
    r".*You have overridden `transfer_batch_to_device`",
    r".*isinstance\(treespec, LeafSpec\)` is deprecated",
    r".*`training_step` returned `None`",
    r"Found .* module\(s\) in eval mode at the start of training",
)
"""Warnings of Lightning about what the training plan does on purpose."""


@contextmanager
def quiet_lightning(added_up: Sequence[str] = ()) -> Iterator[None]:
    """Context in which Lightning logs warnings and errors only, without the expected ones.

    Parameters
    ----------
    added_up
        Names of metrics that are logged with the same value in all processes, for which Lightning
        would recommend `sync_dist`.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        for pattern in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", pattern)
        names = "|".join([*map(re.escape, added_up), "lr-.*"])
        warnings.filterwarnings("ignore", rf".*`self\.log\('({names})', \.\.\., sync_dist=True\)`")
        for each in loggers:
            each.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


class QuietLogger(Logger):
    """Stores metrics in memory and writes nothing.

    Attributes
    ----------
    rows
        Metrics that were logged, with their step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "quiet"

    @property
    def version(self) -> int:
        """Version of the logger."""
        return 0

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Store metrics with their step."""
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        """Store nothing: the model has its options."""


def needs_logger(callback: Callback) -> bool:
    """Whether a callback of Lightning refuses to run without a logger."""
    return isinstance(callback, DeviceStatsMonitor | LearningRateMonitor)
