"""Threads follow the processors that a process may use, and wait for a short time only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cellvae import settings
from cellvae.core import cpu_threads as module
from cellvae.core.cpu_threads import NUM_THREADS_VARIABLES, CpuThreads, count_processors


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> CpuThreads:
    """Threads of a process in which torch has four, and that may use two processors."""
    for name in NUM_THREADS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "count_processors", lambda: 2)
    n_threads = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: n_threads.__setitem__(0, n))
    return CpuThreads()


def test_a_quota_limits_the_threads(
    four_threads: CpuThreads, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="cellvae"):
        four_threads.limit_to_processors()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(3)  # by the user, later
        four_threads.limit_to_processors()
    assert torch.get_num_threads() == 3
    (message,) = caplog.messages
    assert "Using 2 of 4 threads" in message


@pytest.mark.parametrize("name", NUM_THREADS_VARIABLES)
def test_a_number_in_the_environment_stays(
    four_threads: CpuThreads, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "4")
    four_threads.limit_to_processors()
    assert torch.get_num_threads() == 4


def test_a_number_in_the_settings_stays(
    four_threads: CpuThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["cellvae.settings"], "cpu_threads", four_threads)
    settings.num_threads = 4
    four_threads.limit_to_processors()
    assert torch.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")
def test_processors_of_the_affinity_mask_are_counted() -> None:
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert count_processors() == 1
    finally:
        os.sched_setaffinity(0, mask)


REPORT = """
import json, os, sys
{first}
import cellvae
from cellvae.core.cpu_threads import cpu_threads
print(json.dumps([os.environ.get("GOMP_SPINCOUNT"), cpu_threads.spin_is_short]))
"""


SPIN_COUNT = str(module.choose_spin_count())


@pytest.mark.parametrize(
    ("first", "environment", "expected"),
    [
        ("", {}, [SPIN_COUNT, True]),
        ("sys.modules['torch'] = None", {}, [SPIN_COUNT, False]),
        ("", {"OMP_WAIT_POLICY": "active"}, [None, True]),
        ("", {"GOMP_SPINCOUNT": "7"}, ["7", True]),
    ],
    ids=["torch later", "torch before", "policy of the user", "count of the user"],
)
def test_waiting_threads_sleep_early(
    first: str, environment: dict[str, str], expected: list[object]
) -> None:
    inherited = {k: v for k, v in os.environ.items() if k not in module.SPIN_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(first=first)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n", 20_000),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n", 10_000),
        (None, 10_000),
    ],
    ids=["AMD", "Intel", "not Linux"],
)
def test_threads_spin_as_long_as_was_measured_for_the_maker(
    tmp_path: Path, cpu_info: str | None, expected: int
) -> None:
    if cpu_info is not None:
        (tmp_path / "cpuinfo").write_text(cpu_info)
    assert module.choose_spin_count(tmp_path / "cpuinfo") == expected
