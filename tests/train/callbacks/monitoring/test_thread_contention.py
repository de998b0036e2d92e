"""Training says once what to set where its threads wait for processors."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cellvae.core.cpu_threads import choose_spin_count, cpu_threads
from cellvae.train.callbacks.monitoring import thread_contention
from cellvae.train.callbacks.monitoring.thread_contention import (
    ThreadContention,
    ThreadTimes,
    read_thread_times,
)

CPU: Any = SimpleNamespace(device=torch.device("cpu"))
GPU: Any = SimpleNamespace(device=torch.device("cuda"))
TRAINER: Any = None


def messages_of_epochs(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    epochs: list[ThreadTimes],
    *,
    n_threads: int = 4,
    plan: Any = CPU,
) -> list[str]:
    """Messages of a run whose epochs take these times."""
    now = ThreadTimes(100.0, 50.0, 10.0)
    monkeypatch.setattr(thread_contention, "read_thread_times", lambda: now)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    callback = ThreadContention()
    for epoch in epochs:
        callback.on_train_epoch_start(TRAINER, plan)
        now = ThreadTimes(*(a + b for a, b in zip(now, epoch, strict=True)))
        callback.on_train_epoch_end(TRAINER, plan)
    return caplog.messages


@pytest.mark.parametrize(
    ("short", "what_to_set"),
    [(True, "cellvae.settings.num_threads = 1"), (False, f"GOMP_SPINCOUNT={choose_spin_count()}")],
)
def test_waiting_is_reported_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    short: bool,
    what_to_set: str,
) -> None:
    monkeypatch.setattr(cpu_threads, "spin_is_short", short)
    busy = ThreadTimes(3.0, 4.0, 2.1)
    (message,) = messages_of_epochs(monkeypatch, caplog, [busy, busy, busy])
    assert "70% of the time" in message
    assert "its 4 threads" in message
    assert what_to_set in message


def test_short_epochs_are_judged_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    epochs = [ThreadTimes(0.5, 0.5, 0.5)] * 3 + [ThreadTimes(1.0, 3.9, 0.0)]
    (message,) = messages_of_epochs(monkeypatch, caplog, epochs)
    assert "60% of the time" in message


@pytest.mark.parametrize(
    ("epoch", "n_threads", "plan"),
    [
        (ThreadTimes(3.0, 8.0, 1.4), 4, CPU),
        (ThreadTimes(3.0, 1.0, 2.0), 1, CPU),
        (ThreadTimes(3.0, 1.0, 2.0), 4, GPU),
        (ThreadTimes(1.9, 1.0, 1.9), 4, CPU),
    ],
    ids=["waits little", "one thread", "on a GPU", "too short"],
)
def test_other_runs_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    epoch: ThreadTimes,
    n_threads: int,
    plan: Any,
) -> None:
    assert not messages_of_epochs(monkeypatch, caplog, [epoch], n_threads=n_threads, plan=plan)


@pytest.mark.skipif(sys.platform != "linux", reason="waiting is counted on Linux")
def test_times_of_this_thread_grow() -> None:
    before = read_thread_times()
    sum(range(1_000_000))
    after = read_thread_times()
    assert before is not None
    assert after is not None
    assert after.wall > before.wall
    assert after.processor > before.processor
    assert after.waiting >= before.waiting


def test_systems_that_do_not_count_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(thread_contention, "SCHEDSTAT", tmp_path / "none")
    assert read_thread_times() is None
