"""Threads of OpenMP on the processors that this process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cellvae.core.log import logger

AMD_SPIN_COUNT, SPIN_COUNT = 20_000, 10_000
"""Iterations that an idle thread of libgomp spins before it sleeps; 300,000 by default."""
CPU_INFO = Path("/proc/cpuinfo")
SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
NUM_THREADS_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class CpuThreads:
    """How many threads torch uses, and how long they spin when they wait for each other.

    Attributes
    ----------
    spin_is_short
        Whether threads that wait leave their processor to others after a short time.
    is_limited
        Whether the number of threads was compared with the processors, or set by the user.
    """

    def __init__(self) -> None:
        self.spin_is_short = False
        self.is_limited = False

    def shorten_spin(self) -> None:
        """Let threads that wait sleep earlier, unless the environment has settings for it.

        libgomp reads the variable when torch is loaded; if that has happened, only processes that
        this one starts have it. Results are the same.
        """
        if not any(name in os.environ for name in SPIN_VARIABLES):
            self.spin_is_short = "torch" not in sys.modules
            os.environ["GOMP_SPINCOUNT"] = str(choose_spin_count())
        else:
            self.spin_is_short = True

    def limit_to_processors(self) -> None:
        """Use at most as many threads as processors, by affinity mask and quota of the cgroup.

        A number that the user has set, in `cellvae.settings` or the environment, stays.
        """
        if self.is_limited or any(name in os.environ for name in NUM_THREADS_VARIABLES):
            return
        self.is_limited = True
        import torch

        n_processors = count_processors()
        if torch.get_num_threads() > n_processors:
            logger.info(
                "Using %d of %d threads: the number of processors that this process may use. "
                "cellvae.settings.num_threads sets another number.",
                n_processors,
                torch.get_num_threads(),
            )
            torch.set_num_threads(n_processors)


cpu_threads = CpuThreads()
"""The threads of this process."""


def choose_spin_count(cpu_info: Path = CPU_INFO) -> int:
    """Iterations of an idle thread before it sleeps, by the maker of the processor.

    Each is one instruction `pause`, which takes AMD's processors half the time of Intel's or less.
    A thread that sleeps during the parts of a step that another makes alone has to be woken up,
    which takes longer than to spin on.

    Parameters
    ----------
    cpu_info
        File of Linux that says who made the processor.
    """
    try:
        with cpu_info.open() as file:
            first_lines = file.read(256)
    except OSError:
        return SPIN_COUNT
    return AMD_SPIN_COUNT if "AuthenticAMD" in first_lines else SPIN_COUNT


def count_processors() -> int:
    """Processors that this process may use, by its affinity mask and the quota of its cgroup."""
    from joblib import cpu_count  # noqa: TID251 - reads no pickle

    return int(cpu_count())
