"""Whether numbers are finite, in one pass over many tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellvae.kernels.dispatch import can_compile
from cellvae.settings import settings

MIN_SIZE = 1 << 16
"""Numbers below which loading a kernel does not pay."""


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number of some tensors is finite; a device is waited for."""
    many = sum(tensor.numel() for tensor in tensors) >= MIN_SIZE
    if (
        many
        and settings.kernels != "torch"
        and all(map(is_contiguous_float32, tensors))
        and can_compile("isfinite")
    ):
        return scan_tensors(tensors)
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(list(tensors)))).all())


def is_contiguous_float32(tensor: Tensor) -> bool:
    """Whether a tensor is in single precision on the CPU, its numbers together in memory."""
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        return False
    return tensor.is_contiguous() or (tensor.ndim == 2 and tensor.t().is_contiguous())


def scan_tensors(tensors: Sequence[Tensor]) -> bool:
    """Whether every number is finite, by as many threads as torch has."""
    from cellvae.kernels.compiled.isfinite_numba import scan_finite
    from cellvae.kernels.openmp import call_in_threads

    places = [number for t in tensors for number in (t.data_ptr(), t.numel())]
    job = np.array([0, 0, len(tensors), 0, *places], dtype=np.int64)
    job[3] = job.ctypes.data
    work: Any = scan_finite
    call_in_threads(work.address, job.ctypes.data, torch.get_num_threads())
    return bool(job[1] == 0)
