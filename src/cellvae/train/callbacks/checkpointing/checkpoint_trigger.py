"""When checkpoints are saved, beside the metric: chosen epochs, and every so often."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    import datetime

Epochs = Collection[int] | Callable[[int], bool]
"""Epochs counted from 1, or a function that says of an epoch whether it is one."""


class CheckpointTrigger:
    """Epochs of a run after which a checkpoint is due.

    Parameters
    ----------
    epochs
        Chosen epochs.
    every_n_epochs
        Epochs between two checkpoints.
    every_n_minutes
        Least minutes between two checkpoints.

    Raises
    ------
    InvalidOptionError
        If an argument has a value that it cannot take.
    """

    def __init__(
        self, epochs: Epochs | None, every_n_epochs: int | None, every_n_minutes: float | None
    ) -> None:
        if not callable(epochs):
            check_epochs(epochs)
        if every_n_epochs is not None and every_n_epochs < 1:
            raise InvalidOptionError(
                f"Expected every_n_epochs to be at least 1; got {every_n_epochs}."
            )
        if every_n_minutes is not None and every_n_minutes < 0:
            raise InvalidOptionError(
                f"Expected every_n_minutes to be at least 0; got {every_n_minutes}."
            )
        self.epochs = epochs
        self.every_n_epochs = every_n_epochs
        self.every_n_minutes = every_n_minutes
        self.start()

    def start(self) -> None:
        """Count minutes from now."""
        self.since = time.monotonic()

    @property
    def is_periodic(self) -> bool:
        """Whether something is due every so often."""
        return self.every_n_epochs is not None or self.every_n_minutes is not None

    def is_chosen_epoch(self, n: int) -> bool:
        """Whether the n-th epoch of the run, counted from 1, is one of the chosen."""
        if callable(self.epochs):
            return bool(self.epochs(n))
        return self.epochs is not None and n in self.epochs

    def elapsed_periods(self, n: int) -> list[str]:
        """Which of the periods end with the n-th epoch of the run, counted from 1."""
        over = []
        if self.every_n_epochs is not None and n % self.every_n_epochs == 0:
            over.append("every_n_epochs")
        minutes = self.every_n_minutes
        if minutes is not None and time.monotonic() - self.since >= 60 * minutes:
            over.append("every_n_minutes")
            self.start()
        return over

    def describe(self) -> str:
        """The epochs as text, the same in every process."""
        if callable(self.epochs):
            return getattr(self.epochs, "__qualname__", type(self.epochs).__qualname__)
        return "None" if self.epochs is None else str(sorted(self.epochs))


def check_epochs(epochs: Collection[int] | None) -> None:
    """Check that epochs are whole numbers from 1.

    Raises
    ------
    InvalidOptionError
        If one is not.
    """
    if epochs is None:
        return
    if not isinstance(epochs, Collection) or isinstance(epochs, str):
        raise InvalidOptionError(
            f"Expected epochs to be several epochs or a function of one; got {epochs!r}. "
            "For a single one give epochs=[10], for every tenth every_n_epochs=10."
        )
    wrong = [epoch for epoch in epochs if not isinstance(epoch, int) or epoch < 1]
    if wrong:
        raise InvalidOptionError(
            f"Expected epochs to be whole numbers, the first epoch being 1; got {wrong[0]!r}."
        )


def minutes_of(every_n_minutes: float | None, interval: datetime.timedelta | None) -> float | None:
    """Minutes between two checkpoints, given as a number or as Lightning takes it.

    Raises
    ------
    InvalidOptionError
        If both are given.
    """
    if interval is None:
        return every_n_minutes
    if every_n_minutes is not None:
        raise InvalidOptionError(
            "Expected every_n_minutes or train_time_interval, which mean the same; got both. "
            "Give every_n_minutes."
        )
    return interval.total_seconds() / 60
