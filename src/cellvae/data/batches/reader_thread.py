"""The thread that reads cells while the caller computes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def make_reader_pool(name: str) -> ThreadPoolExecutor:
    """Pool of one thread, in which operations of torch do not start further threads.

    Threads of OpenMP beyond the number of cores make all of them sleep between two operations,
    those of the caller too: steps of training would take nearly twice as long.
    """
    n_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    pool.submit(use_one_thread).result()
    torch.set_num_threads(n_threads)  # of this thread, and of those that are started later
    return pool


def use_one_thread() -> None:
    """Let operations of torch in the calling thread not start others."""
    torch.get_num_threads()  # or the first operation sets the number of the process
    torch.set_num_threads(1)
