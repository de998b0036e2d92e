"""The thread that reads buffers leaves the threads of the caller alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cellvae.data.batches.reader_thread import make_reader_pool


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_a_reader_computes_with_one_thread_and_its_caller_with_as_many_as_before() -> None:
    with make_reader_pool("reader") as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    with make_reader_pool("another") as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 3
