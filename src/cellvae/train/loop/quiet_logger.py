"""A logger that keeps what it gets, for callbacks that insist on having one."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback, DeviceStatsMonitor, LearningRateMonitor
from lightning.pytorch.loggers import Logger


class QuietLogger(Logger):
    """Keeps metrics in memory and writes nothing.

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
        """Keep metrics."""
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *arguments: Any) -> None:
        """Keep nothing: the model has its options."""


def needs_logger(callback: Callback) -> bool:
    """Whether a callback of Lightning's refuses to work without a logger."""
    return isinstance(callback, DeviceStatsMonitor | LearningRateMonitor)
