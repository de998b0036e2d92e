"""Kernels on the threads of torch, and on one thread where these are out of reach."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cellvae.core.platform.fork import fork
from cellvae.kernels import log_fold_change_summary, openmp
from cellvae.kernels.openmp import choose_n_threads, find_gomp_parallel, run_parallel


class CountCalls:
    """A kernel that counts the calls, and the threads that they come from."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.call)
        self.address = ctypes.cast(self.callback, ctypes.c_void_p).value

    def call(self, job: int) -> None:
        libc = ctypes.CDLL(None)
        libc.pthread_self.restype = ctypes.c_ulong
        self.threads.append(libc.pthread_self())
        ctypes.cast(job, ctypes.POINTER(ctypes.c_int64))[1] = 7


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget the entry point that was found, before and after each test."""
    find_gomp_parallel.cache_clear()
    yield
    find_gomp_parallel.cache_clear()


needs_openmp = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "OpenMP" not in torch.__config__.parallel_info(),
    reason="threads of torch are reached on Linux, where torch uses OpenMP",
)


@needs_openmp
def test_every_thread_calls_the_kernel_with_the_job() -> None:
    assert find_gomp_parallel() is not None
    kernel = CountCalls()
    fields = run_parallel(kernel, (3, 0), 3)
    assert len(set(kernel.threads)) == len(kernel.threads) == 3
    assert fields.tolist() == [3, 7]


def without_symbol(path: str) -> Any:
    return SimpleNamespace()


def unreadable(path: str) -> Any:
    raise OSError("cannot open shared object file")


@pytest.mark.parametrize("missing", ["library", "symbol", "file", "OpenMP in torch"])
def test_without_the_entry_point_one_thread_does_it_all(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(20, 300, generator=generator) for _ in range(2))
    expected = log_fold_change_summary(first, second, 1e-6, 0.1)
    find_gomp_parallel.cache_clear()
    if missing == "library":
        monkeypatch.setattr(openmp, "openmp_libraries", list)
    elif missing == "OpenMP in torch":
        monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "native thread pool")
    else:
        monkeypatch.setattr(openmp, "openmp_libraries", lambda: ["libgomp.so.1"])
        loader = without_symbol if missing == "symbol" else unreadable
        monkeypatch.setattr(openmp.ctypes, "CDLL", loader)
    assert find_gomp_parallel() is None
    monkeypatch.undo()

    monkeypatch.setattr(openmp, "find_gomp_parallel", lambda: None)
    kernel = CountCalls()
    assert run_parallel(kernel, (3, 0), 3).tolist() == [3, 7]
    assert len(kernel.threads) == 1
    result = log_fold_change_summary(first, second, 1e-6, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_a_forked_child_that_cannot_use_threads_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "single_thread_in_child", True)
    kernel = CountCalls()
    run_parallel(kernel, (0, 0), 2)
    assert len(kernel.threads) == 1


def test_small_batches_use_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [choose_n_threads(n) for n in (0, 1, 31, 32, 64, 1000)] == [1, 1, 1, 2, 4, 4]
