"""Which program has started a process, and whether it has started as many as a run needs."""

from __future__ import annotations

import os

import pytest

from cellvae.core.platform.launcher import find_launcher, process_rank
from cellvae.errors import InvalidOptionError
from cellvae.train.options.process_count import check_started_processes, count_processes

TASK = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
WORKER = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of a launcher."""
    for name in list(os.environ):
        if name.startswith(("SLURM", "TORCHELASTIC")) or name in (*WORKER, "NODE_RANK"):
            monkeypatch.delenv(name)


def set_variables(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    """Set environment variables."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "name", "rank"),
    [
        ({}, None, 0),
        (TASK, "SLURM", 3),
        (TASK | {"SLURM_JOB_NAME": "interactive"}, None, 0),
        # In a batch script, and for what it starts without srun.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None, 0),
        (WORKER, "torchrun", 2),
        (TASK | WORKER, "torchrun", 2),
        # Started by Lightning.
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, None, 1),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, None, 1),
    ],
)
def test_launcher_and_rank(
    values: dict[str, str], name: str | None, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, values)
    launcher = find_launcher()
    assert (launcher and launcher.name) == name
    assert process_rank() == rank
    assert launcher is None or launcher.n_processes == 4


@pytest.mark.parametrize("values", [TASK, WORKER])
def test_a_seed_is_that_of_all_processes_and_of_one_start(
    values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    for rank, restart in (("0", "0"), ("1", "0"), ("0", "1")):
        own = {"RANK": rank} if "RANK" in values else {"SLURM_PROCID": rank}
        again = {"TORCHELASTIC_RESTART_COUNT": restart, "SLURM_RESTART_COUNT": restart}
        set_variables(monkeypatch, values | own | again)
        launcher = find_launcher()
        assert launcher is not None
        seeds.append(launcher.seed)
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize(("values", "flag"), [(TASK, "--ntasks-per-node"), (WORKER, "--nnodes")])
def test_another_number_of_processes_is_refused(
    values: dict[str, str], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, values)
    check_started_processes("auto", 1)
    check_started_processes(2, 2)
    with pytest.raises(InvalidOptionError, match=f"Expected 8 processes.* started 4.*{flag}"):
        check_started_processes("4", 2)


def test_processes_are_counted() -> None:
    given = [("auto", 1), (3, 2), ([0, 2], 1), ("0,1,2", 2), ("2", 1)]
    assert [count_processes(*each) for each in given] == [1, 6, 2, 6, 2]
