"""Whether tensors are finite, in one pass over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cellvae.core.platform.device_kind import is_cpu
from cellvae.core.platform.torch_adapter import norms
from cellvae.kernels.compiled.job_layouts import ALL_FINITE, AllFiniteJob
from cellvae.kernels.dispatch import can_compile
from cellvae.kernels.openmp import run_parallel
from cellvae.settings import settings

MIN_SIZE = 1 << 16
"""Number of elements below which loading a kernel does not pay."""


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no element of the tensors is NaN or infinite; waits for the GPU that they are on."""
    is_large = sum(tensor.numel() for tensor in tensors) >= MIN_SIZE
    if (
        is_large
        and settings.kernels != "torch"
        and all(map(is_contiguous_float32, tensors))
        and can_compile("all_finite")
    ):
        return scan_tensors(tensors)
    return bool(torch.isfinite(norms(tensors)).all())


def is_contiguous_float32(tensor: Tensor) -> bool:
    """Whether a tensor is float32, on the CPU, and without gaps in memory."""
    if tensor.dtype != torch.float32 or not is_cpu(tensor.device):
        return False
    return tensor.is_contiguous() or (tensor.ndim == 2 and tensor.t().is_contiguous())


def scan_tensors(tensors: Sequence[Tensor]) -> bool:
    """Whether all elements of contiguous float32 tensors are finite, by the compiled kernel."""
    from cellvae.kernels.compiled.all_finite_numba import all_finite_kernel

    pairs = np.array([(t.data_ptr(), t.numel()) for t in tensors], dtype=np.int64)
    job = AllFiniteJob(
        next_chunk=0, n_not_finite=0, n_tensors=len(tensors), tensors=pairs.ctypes.data
    )
    fields = run_parallel(all_finite_kernel, job, torch.get_num_threads())
    return bool(fields[ALL_FINITE.n_not_finite] == 0)
