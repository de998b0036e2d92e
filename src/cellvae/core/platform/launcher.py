"""Processes that torchrun or SLURM has started, as their environment variables tell."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass

SLURM_WITHOUT_TASKS = ("bash", "interactive")
"""Names of SLURM jobs in which Lightning starts the processes itself."""
RUN_VARIABLES = (
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_STEP_ID",
)


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """The program that has started the processes of a run.

    Parameters
    ----------
    name
        `"torchrun"` or `"SLURM"`.
    n_processes
        Processes that it has started, on all nodes.
    """

    name: str
    n_processes: int

    @property
    def seed(self) -> int:
        """Seed that all processes of one start agree on, and that differs between starts."""
        text = "/".join(os.environ.get(name, "") for name in RUN_VARIABLES)
        return zlib.crc32(f"{self.name}/{text}/{os.environ.get('MASTER_PORT', '')}".encode())


def find_launcher() -> Launcher | None:
    """The program that has started this process as one of several; None if there is none."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return Launcher(name="torchrun", n_processes=int(os.environ.get("WORLD_SIZE", "1")))
    if is_slurm_task():
        return Launcher(name="SLURM", n_processes=int(os.environ.get("SLURM_NTASKS", "1")))
    return None


def is_slurm_task() -> bool:
    """Whether `srun` has started this process, other than for interactive work."""
    name = os.environ.get("SLURM_JOB_NAME")
    return "SLURM_STEP_ID" in os.environ and name not in SLURM_WITHOUT_TASKS


def process_rank() -> int:
    """Rank of this process among those of its run; 0 if it is the only one."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if is_slurm_task():
        return int(os.environ.get("SLURM_PROCID", "0"))
    n_local, node = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("NODE_RANK", "0"))
    # Processes that Lightning has started know their place on the node; the first of all is 0.
    return n_local if not node else max(1, n_local)
