"""Team of threads that works on one job: torch's own, where it can be asked, else one thread.

Two teams on the same processors hold each other up: the threads of torch keep a processor busy for
a while after they have nothing left to do. OpenMP's entry point lets them do our work too.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.core.fork import fork

Parallel = Callable[[int, int, int, int], None]
N_RANGES, MIN_CELLS_PER_RANGE = 64, 8
"""Ranges of cells at most, each the work of one thread; cells of a range at least."""
MIN_CELLS_PER_THREAD = 16
"""Cells below which a further thread does not pay."""


def cells_per_range(n_cells: int) -> int:
    """Cells whose sums are kept apart from those of others, whatever the number of threads."""
    return max(MIN_CELLS_PER_RANGE, -(-n_cells // N_RANGES))


def choose_n_threads(n_cells: int) -> int:
    """Threads that work on so many cells: as many as torch has, fewer for few cells each."""
    return max(1, min(torch.get_num_threads(), n_cells // MIN_CELLS_PER_THREAD))


def run_parallel(work: Any, job: NDArray[np.int64], n_cells: int) -> None:
    """Let a team of threads work on a job.

    Parameters
    ----------
    work
        Compiled function (numba's `cfunc`) that takes its part of the job until none is left.
    job
        Row of whole numbers that says what is to be done.
    n_cells
        Cells that the job is about.
    """
    call_in_threads(work.address, job.ctypes.data, choose_n_threads(n_cells))


def call_in_threads(work: int, job: int, n_threads: int) -> None:
    """Call a compiled function with the address of its job in every thread of a team.

    Parameters
    ----------
    work
        Address of a C function of one pointer, which takes its part of the job until none is left.
    job
        Address of the job.
    n_threads
        Threads of the team; the calling one is of it.
    """
    parallel = find_gomp_parallel() if n_threads > 1 and not fork.single_thread_in_child else None
    if parallel is None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(work)(job)
    else:
        parallel(work, job, n_threads, 0)


@cache
def find_gomp_parallel() -> Parallel | None:
    """Entry point of the OpenMP library that torch uses; None where it is not known."""
    if not sys.platform.startswith("linux") or "OpenMP" not in torch.__config__.parallel_info():
        return None
    lines = Path("/proc/self/maps").read_text().splitlines()
    files = {line.split()[-1] for line in lines if "libgomp" in line or "libiomp5" in line}
    own = sorted(name for name in files if "torch" in name) or sorted(files)
    if not own:
        return None
    function = getattr(ctypes.CDLL(own[0]), "GOMP_parallel", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    function.restype = None
    entry: Parallel = function
    return entry
