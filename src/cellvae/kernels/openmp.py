"""Runs a compiled kernel on torch's OpenMP threads, or on one thread if that is not possible.

A second pool of threads would compete with torch's, which keep their processors busy for a while
after a parallel region. `GOMP_parallel`, the entry point of the OpenMP library for compiled
parallel regions, runs our kernels on the threads of torch instead. It is part of the binary
interface of libgomp, which the libraries of LLVM and Intel implement too.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any

import torch

from cellvae.core.platform.fork import fork, openmp_libraries

GompParallel = Callable[[int, int, int, int], None]
"""`GOMP_parallel(function, data, n_threads, flags)`."""
MAX_RANGES, MIN_CELLS_PER_RANGE = 64, 8
"""Largest number of ranges that cells are split into, and fewest cells of a range."""
MIN_CELLS_PER_THREAD = 16
"""Number of cells below which a further thread does not pay."""


def cells_per_range(n_cells: int) -> int:
    """Number of cells whose sums are computed in order by one thread.

    It does not depend on the number of threads, so neither does the rounding of sums over cells.
    """
    return max(MIN_CELLS_PER_RANGE, -(-n_cells // MAX_RANGES))


def choose_n_threads(n_cells: int) -> int:
    """Number of threads for a batch: as many as torch uses, fewer for a small batch."""
    return max(1, min(torch.get_num_threads(), n_cells // MIN_CELLS_PER_THREAD))


def run_parallel(kernel: Any, job: Iterable[int], n_threads: int) -> array[int]:
    """Run a kernel on several threads, all of which work on the same job.

    Parameters
    ----------
    kernel
        Compiled function that works on its job until nothing of it is left.
    job
        Fields of the job, a layout of :mod:`cellvae.kernels.compiled.job_layouts`. The arrays whose
        addresses it has must exist until this function returns.
    n_threads
        Number of threads, the calling one included.

    Returns
    -------
    array
        Fields of the job after the run.
    """
    fields = array("q", job)
    address, _ = fields.buffer_info()
    parallel = find_gomp_parallel() if n_threads > 1 and not fork.single_thread_in_child else None
    if parallel is None:
        function_at(kernel.address)(address)
    else:
        parallel(kernel.address, address, n_threads, 0)
    return fields


@lru_cache(maxsize=64)
def function_at(address: int) -> Callable[[int], None]:
    """Function of one pointer, given the address of its code."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@cache
def find_gomp_parallel() -> GompParallel | None:
    """`GOMP_parallel` of the OpenMP library that torch uses; None if it is not found."""
    if "OpenMP" not in torch.__config__.parallel_info():
        return None
    libraries = openmp_libraries()
    # The process may have loaded others too, that of scikit-learn for instance.
    libraries = [path for path in libraries if "torch" in path] or libraries
    try:
        function = ctypes.CDLL(libraries[0]).GOMP_parallel
    except (IndexError, OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    function.restype = None
    parallel: GompParallel = function
    return parallel
