"""OpenMP threads in forked processes, which `multiprocessing` makes on Linux.

A forked child has the memory of its parent and none of its threads. An OpenMP library that has
started threads in the parent waits in the child for threads that do not exist: the first parallel
region, in torch or in our kernels, would hang.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

PAUSE_HARD = 2
"""Value of `omp_pause_hard`: release all resources, threads too (OpenMP 5.0, section 3.2.45)."""
OPENMP_LIBRARY_NAMES = ("libgomp", "libiomp5", "libomp")


class ForkHandler:
    """Handlers that make OpenMP usable after this process is forked.

    Idle threads are ended before the fork; parent and child start new ones when they need them.
    If a library cannot do that, the child computes on one thread.
    """

    def __init__(self) -> None:
        self.paused = True
        self.single_thread_in_child = False

    def before_fork(self) -> None:
        """End the idle threads, in the parent."""
        self.paused = "torch" not in sys.modules or pause_openmp()

    def after_in_child(self) -> None:
        """Use one thread in the child if the threads of its parent could not be ended."""
        if not self.paused:
            import torch

            self.single_thread_in_child = True
            torch.set_num_threads(1)


fork = ForkHandler()
"""The handlers of this process."""


def pause_openmp() -> bool:
    """End the idle threads of all loaded OpenMP libraries; True if that was possible."""
    libraries = openmp_libraries()
    results = [pause_library(path) for path in libraries]
    return bool(results) and all(results)


def pause_library(path: str) -> bool:
    """End the idle threads of one OpenMP library; True if that was possible."""
    try:
        function = ctypes.CDLL(path).omp_pause_resource_all
    except (OSError, AttributeError):  # libraries before GCC 9 (2018) lack it
        return False
    function.argtypes, function.restype = (ctypes.c_int,), ctypes.c_int
    return int(function(PAUSE_HARD)) == 0


def openmp_libraries() -> list[str]:
    """Paths of the OpenMP libraries that this process has loaded; empty if unknown."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    return sorted(path for path in paths if Path(path).name.startswith(OPENMP_LIBRARY_NAMES))


def register_fork_handlers() -> None:
    """Register the handlers, on systems that can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=fork.before_fork, after_in_child=fork.after_in_child)
