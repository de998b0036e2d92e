"""Memory of the process: the allocator of the C library, and errors of allocation."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# Numbers of the parameters in malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
RETAIN_FREED_MEMORY = (
    (MMAP_MAX, 0),
    (TRIM_THRESHOLD, 2**31 - 1),
    (TOP_PAD, 2**26),
)
"""Nothing that is freed goes back to the system: every allocation comes from one heap."""
# What the library sets by itself once a program has freed a block of 32 MiB, its largest threshold.
GLIBC_DEFAULTS = (
    (MMAP_MAX, 65_536),
    (MMAP_THRESHOLD, 2**25),
    (TRIM_THRESHOLD, 2**26),
    (TOP_PAD, 2**17),
)
VARIABLES = (
    "GLIBC_TUNABLES",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
)

OUT_OF_MEMORY_MESSAGES = ("out of memory", "allocate memory")
"""Parts of the messages of torch's RuntimeErrors for an allocation that failed."""

_lock = threading.Lock()
_n_inside = 0


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Context in which freed memory is kept for what is allocated next.

    A step of training frees what it has allocated, and the next one allocates as much again. By
    default the C library of Linux gives memory of this size back to the system each time, which
    hands it out anew page by page, cleared: a fifth of the time of a step at 10,000 genes. What was
    kept is given back at the end. Does nothing with another C library, and where the user has set
    the library's own variables.
    """
    global _n_inside
    library = find_glibc()
    if library is None:
        yield
        return
    with _lock:
        _n_inside += 1
        if _n_inside == 1:
            set_malloc_parameters(library, RETAIN_FREED_MEMORY)
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if not _n_inside:
                set_malloc_parameters(library, GLIBC_DEFAULTS)
                library.malloc_trim(ctypes.c_size_t(0))


@cache
def find_glibc() -> Any:
    """The C library, where it is glibc and nobody has told it what to do; else None."""
    if not sys.platform.startswith("linux") or any(name in os.environ for name in VARIABLES):
        return None
    library = ctypes.CDLL(None)
    known = all(
        hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")
    )
    return library if known else None


def set_malloc_parameters(library: Any, values: tuple[tuple[int, int], ...]) -> None:
    """Set parameters of the allocator."""
    mallopt: Callable[[int, int], int] = library.mallopt
    for parameter, value in values:
        mallopt(parameter, value)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the machine has run out of memory."""
    import torch  # not needed to import the package

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(t in message for t in OUT_OF_MEMORY_MESSAGES)
