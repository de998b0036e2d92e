"""Facts of one training run: what it is made of, how far it got, and why it stopped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cellvae.data.setup.cell_values import CellValues
from cellvae.train.records.training_report import TrainingReport


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    """Best epoch that a callback has found, by the metric it monitors."""

    monitor: str
    epoch: int
    score: float
    path: str | None = None
    restored: bool = False
    """Whether the module has the weights of this epoch."""


class RunState:
    """Facts of a run that is in progress; callbacks read them as `plan.run`.

    Attributes are for reading. The run changes them through the methods below, and so must
    everybody else.

    Parameters
    ----------
    run_id
        Name of the run.
    identity
        Model, data and hyperparameters of the run as plain values, with which a resumed run must
        agree.
    cell_values
        Values of each column of the cells that the run reads; saved in its training state.
    config
        All options of the run as plain values.
    is_continuation
        Whether optimizers of an earlier run are continued.

    Attributes
    ----------
    status
        `"running"`, and the status of the report from then on.
    started
        Whether there was an epoch to train.
    interrupted
        Whether the run was interrupted by Ctrl-C.
    stop_reason
        Why a callback stopped the run; None if none did.
    nan_event
        What was not finite, as a sentence; None if everything was finite.
    best
        Best epoch by monitored metric.
    n_epochs_done
        Whole epochs of the run, before an interruption too.
    n_cells_seen
        Training cells seen, with repetition, before an interruption too.
    weights_kept
        Whether the module has the weights of this run at its end.
    report
        Report of the run; None until it has ended.
    """

    def __init__(
        self,
        *,
        run_id: str = "",
        identity: Mapping[str, Any] | None = None,
        cell_values: Mapping[str, CellValues] | None = None,
        config: Mapping[str, Any] | None = None,
        is_continuation: bool = False,
    ) -> None:
        self.run_id = run_id
        self.identity = dict(identity or {})
        self.cell_values = dict(cell_values or {})
        self.config = dict(config or {})
        self.is_continuation = is_continuation
        self.status: str = "running"
        self.started = False
        self.interrupted = False
        self.stop_reason: str | None = None
        self.nan_event: str | None = None
        self.best: dict[str, BestEpoch] = {}
        self.n_epochs_done = 0
        self.n_cells_seen = 0
        self.weights_kept = False
        self.report: TrainingReport | None = None
        self._n_cells_at_start = 0
        self._seconds_at_start = 0.0
        self._start_time = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, before an interruption too."""
        return self._seconds_at_start + time.monotonic() - self._start_time

    def resume_counters(
        self, *, n_epochs: int, n_cells_seen: int, seconds: float, best: Iterable[BestEpoch]
    ) -> None:
        """Set the counters to those of an interrupted run."""
        self.n_epochs_done = n_epochs
        self.n_cells_seen = self._n_cells_at_start = n_cells_seen
        self._seconds_at_start = seconds
        self.best = {each.monitor: each for each in best}

    def begin(self, n_epochs_done: int) -> None:
        """Begin to train, without what a search of the learning rate or batch size has counted."""
        self.started = True
        self.n_epochs_done, self.n_cells_seen = n_epochs_done, self._n_cells_at_start

    def count_epoch(self, n_epochs_done: int, n_cells: int) -> None:
        """Count an epoch and its training cells."""
        self.n_epochs_done = n_epochs_done
        self.n_cells_seen += n_cells

    def note_best(self, best: BestEpoch) -> None:
        """Note the best epoch by a metric."""
        self.best[best.monitor] = best

    def note_stop(self, reason: str) -> None:
        """Note why a callback stopped the run; the first reason counts."""
        self.stop_reason = self.stop_reason or reason or "a callback asked for it"

    def note_nan(self, event: str) -> None:
        """Note what was not finite; the first event counts."""
        self.nan_event = self.nan_event or event

    def note_interrupt(self) -> None:
        """Note that the run was interrupted by Ctrl-C."""
        self.interrupted = True

    def conclude(self, report: TrainingReport, *, weights_kept: bool) -> None:
        """Set the status, report and fate of the weights at the end of the run."""
        self.status, self.report, self.weights_kept = report.status, report, weights_kept
