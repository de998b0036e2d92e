"""How many processes a run has, and whether as many were started."""

from __future__ import annotations

import sys
from typing import Any

from cellvae.core.platform.launcher import find_launcher
from cellvae.errors import InvalidOptionError

STARTING_STRATEGIES = ("_spawn", "_fork", "_notebook")
"""Ends of the names of Lightning's strategies that start processes from this one."""


def count_processes(devices: Any, num_nodes: Any) -> int:
    """Processes of a run, one for each device of each node; `"auto"` is one device."""
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices == -1:
        import torch

        devices = max(1, torch.cuda.device_count())
    if isinstance(devices, (list, tuple)):
        devices = len(devices)
    elif isinstance(devices, str):
        devices = 1 if devices == "auto" else len(devices.split(","))
    return int(devices) * (num_nodes if isinstance(num_nodes, int) else 1)


def needs_new_processes(devices: Any, num_nodes: int, strategy: Any) -> bool:
    """Whether a run on several devices has to leave this process for new ones.

    A notebook or console is no script that other processes could run. Strategies that start
    processes from this one by themselves would lose history and report with them.
    """
    if num_nodes > 1 or count_processes(devices, num_nodes) == 1 or find_launcher() is not None:
        return False
    if isinstance(strategy, str) and strategy.endswith(STARTING_STRATEGIES):
        return True
    return strategy in ("auto", "ddp") and hasattr(sys, "ps1")


def check_started_processes(devices: Any, num_nodes: int) -> None:
    """Check that torchrun or SLURM has started as many processes as a run of several needs.

    A run of one process is not checked: each task of a job may train a model of its own.

    Raises
    ------
    InvalidOptionError
        If it has started another number.
    """
    n_processes, launcher = count_processes(devices, num_nodes), find_launcher()
    if launcher is None or n_processes in (1, launcher.n_processes):
        return
    how = {
        "SLURM": "--nodes and --ntasks-per-node of sbatch or srun",
        "torchrun": "--nnodes and --nproc-per-node of torchrun",
    }[launcher.name]
    raise InvalidOptionError(
        f"Expected {n_processes} processes, devices={devices!r} on each of num_nodes={num_nodes}; "
        f"{launcher.name} has started {launcher.n_processes}. {how} must be num_nodes and devices."
    )
