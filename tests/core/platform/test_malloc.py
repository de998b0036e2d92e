"""Memory that is kept between the steps of a run."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cellvae.core.platform import malloc as allocation
from cellvae.core.platform.malloc import (
    GLIBC_DEFAULTS,
    RETAIN_FREED_MEMORY,
    is_out_of_memory,
    retain_freed_memory,
)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="page faults are counted on Linux"
)
N_PAGES = 2**23 // 4096


class Library:
    """A C library that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.n_trimmed = 0

    def mallopt(self, parameter: int, value: int) -> int:
        self.told.append((parameter, value))
        return 1

    def malloc_trim(self, pad: object) -> int:
        self.n_trimmed += 1
        return 1


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variables of the allocator, and no library remembered."""
    for name in allocation.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    allocation.find_glibc.cache_clear()
    yield
    allocation.find_glibc.cache_clear()


def faults_of_twenty() -> int:
    """Page faults while 8 MiB are allocated, filled and freed twenty times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        # Two at a time, as a step has several at once.
        first, second = torch.ones(2**21), torch.ones(2**21)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.usefixtures("untouched")
def test_memory_that_was_freed_is_used_again() -> None:
    if allocation.find_glibc() is None:
        pytest.skip("the C library is not glibc")
    with retain_freed_memory():
        faults_of_twenty()
        kept = faults_of_twenty()
    # Forty allocations of 2,048 pages each.
    assert kept < N_PAGES


@pytest.mark.usefixtures("untouched")
def test_what_was_kept_is_given_back() -> None:
    if allocation.find_glibc() is None:
        pytest.skip("the C library is not glibc")
    page = resource.getpagesize()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    before = resident()
    with retain_freed_memory():
        parts = [torch.ones(2**20) for _ in range(64)]
        del parts
        inside = resident() - before
    assert inside > 200 * 2**20
    assert resident() - before < 64 * 2**20


def test_only_the_outermost_context_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocation, "find_glibc", lambda: library)
    with retain_freed_memory():
        with pytest.raises(KeyError), retain_freed_memory():
            raise KeyError
        assert library.told == list(RETAIN_FREED_MEMORY)
    assert library.told == [*RETAIN_FREED_MEMORY, *GLIBC_DEFAULTS]
    assert library.n_trimmed == 1


def test_threads_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocation, "find_glibc", lambda: library)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with retain_freed_memory():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with retain_freed_memory():
        thread.start()
        assert inside.wait(30)
    assert library.told == list(RETAIN_FREED_MEMORY)
    leave.set()
    thread.join(30)
    assert library.told == [*RETAIN_FREED_MEMORY, *GLIBC_DEFAULTS]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", allocation.VARIABLES)
def test_a_user_who_tunes_the_library_is_left_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    assert allocation.find_glibc() is None
    with retain_freed_memory():
        pass


def test_which_errors_mean_that_memory_ran_out() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("no room"))
    assert not is_out_of_memory(ValueError("allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
