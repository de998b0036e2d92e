"""Protocols of callbacks: their place in a run, the metrics that they log or monitor."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    # For signatures outside this folder, which do not import Lightning themselves.
    from lightning.pytorch import Callback as Callback


class Group(IntEnum):
    """Place of a callback in a run; within a group the order of the user stays."""

    STATE = 0
    """Saves the state from which a run resumes, before the next epoch begins."""
    MUTATOR = 1
    """Changes weights, gradients or which of them are trained."""
    PRODUCER = 2
    """Logs metrics; a callback of the user's own belongs here."""
    GUARD = 3
    """Checks for values that are not finite."""
    RECORDER = 4
    """Reads what was logged: tables, files, bars."""
    STOPPER = 5
    """Follows a metric and ends the run."""
    CHECKPOINT = 6
    """Follows a metric and saves models."""


@runtime_checkable
class HasGroup(Protocol):
    """A callback with a place in the run."""

    group: Group


@runtime_checkable
class ProducesMetrics(Protocol):
    """A callback that logs metrics, which others may then follow."""

    def produced_metrics(self) -> Sequence[str]:
        """Names of the metrics that it logs."""
        ...


@runtime_checkable
class FollowsMetrics(Protocol):
    """A callback that follows metrics; validation is switched on where one needs it."""

    def followed_metrics(self) -> Sequence[str]:
        """Names of the metrics that it reads at the end of an epoch."""
        ...
