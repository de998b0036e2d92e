"""Scores of some epochs, the same for every process of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cellvae.errors import InvalidOptionError
from cellvae.train.callbacks.evaluation.score_table import ScoreTable, check_counts
from cellvae.train.records.history import History


class Process:
    """A run as one of its processes sees it; the first computes, and sends to the others."""

    def __init__(self, *, first: bool, sent: list[Any]) -> None:
        self.is_global_zero, self.sent = first, sent
        self.max_epochs, self.current_epoch, self.world_size = 5, 0, 2
        self.strategy = self
        self.logged: list[tuple[int, str, float]] = []
        self.history = History()

    @property
    def epoch(self) -> int:
        return 10 + self.current_epoch

    def broadcast(self, value: Any) -> Any:
        if self.is_global_zero:
            self.sent.append(value)
            return value
        return self.sent.pop(0)

    def log(self, name: str, value: float, **_: Any) -> None:
        self.logged.append((self.epoch, name, value))


def refuse(_: Any) -> dict[str, float]:
    raise AssertionError("computed twice")


def test_only_the_first_process_computes_and_all_log_the_same() -> None:
    sent: list[Any] = []
    seen = []
    for first in (True, False):
        run: Any = Process(first=first, sent=sent)
        table = ScoreTable("eval", 2)
        compute = (lambda plan: {"a": plan.epoch / 8}) if first else refuse
        assert table.at_start(run, run, compute)
        for epoch in range(5):
            run.current_epoch = epoch
            table.at_epoch_end(run, run, compute)
        table.at_end(run, run, compute)
        seen.append((table.state_dict(), run.logged))
    assert seen[0] == seen[1]
    state, logged = seen[0]
    assert state["baseline"] == {"a": 10 / 8}
    assert logged == [(11, "eval/a", 11 / 8), (13, "eval/a", 13 / 8), (14, "eval/a", 14 / 8)]


def test_an_epoch_that_nobody_knew_to_be_the_last_is_scored_at_the_end() -> None:
    run: Any = Process(first=True, sent=[])
    table = ScoreTable("", 4)
    for epoch in range(3):
        run.current_epoch = epoch
        table.at_epoch_end(run, run, lambda plan: {"a": 1.0})
    assert table.rows == run.logged == []
    run.history.add(12, {"train_loss": 3.0})
    table.at_end(run, run, lambda plan: {"a": 0.25})
    assert table.rows == [{"epoch": 12, "a": 0.25}]
    assert run.history.rows == [{"train_loss": 3.0, "a": 0.25}]


def test_a_run_that_goes_on_keeps_its_baseline() -> None:
    table = ScoreTable("eval", 1)
    table.load_state_dict({"baseline": {"a": 0.5}, "rows": [], "last_epoch": 3})
    nobody: Any = SimpleNamespace()
    assert not table.at_start(nobody, nobody, refuse)
    assert table.baseline == {"a": 0.5}


def test_counts_below_one_are_refused() -> None:
    check_counts({"n_cells": None, "k": 1})
    with pytest.raises(InvalidOptionError, match="k to be at least 1; got 0"):
        check_counts({"n_cells": None, "k": 0})
