"""Errors of memory that could not be allocated."""

from __future__ import annotations

import pytest
import torch

from cellvae.core.platform.out_of_memory import is_out_of_memory


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
