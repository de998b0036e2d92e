"""Whether tensors are finite, in one pass over all of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from cellvae.core.platform.device_kind import is_on_cpu
from cellvae.core.platform.torch_adapter import norms
from cellvae.kernels.compiled.job_layouts import ALL_FINITE, AllFiniteJob
from cellvae.kernels.dispatch import can_compile
from cellvae.kernels.openmp import run_parallel
from cellvae.settings import settings

MIN_SIZE = 1 << 16
"""Number of elements below which loading a kernel does not pay."""


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no element of the tensors is NaN or infinite; waits for the GPU that they are on."""
    if settings.kernels != "torch":
        table = tensor_table(tensors)
        if table is not None and sum(table[1::2]) >= MIN_SIZE and can_compile("all_finite"):
            return scan_tensors(table)
    return bool(torch.isfinite(norms(tensors)).all())


def tensor_table(tensors: Sequence[Tensor]) -> array[int] | None:
    """Address and number of elements of each tensor; None if the kernel does not support one.

    It supports tensors of float32 on the CPU, without gaps in memory.
    """
    table = array("q")
    for tensor in tensors:
        if tensor.dtype is not torch.float32 or not is_on_cpu(tensor):
            return None
        if not (tensor.is_contiguous() or (tensor.ndim == 2 and tensor.t().is_contiguous())):
            return None
        table.extend((tensor.data_ptr(), tensor.numel()))
    return table


def scan_tensors(table: array[int]) -> bool:
    """Whether all elements of contiguous float32 tensors are finite, by the compiled kernel.

    Parameters
    ----------
    table
        Address and number of elements of each tensor, one tensor after the other.
    """
    from cellvae.kernels.compiled.all_finite_numba import all_finite_kernel

    job = AllFiniteJob(
        next_chunk=0,
        n_not_finite=0,
        n_tensors=len(table) // 2,
        tensors=table.buffer_info()[0],
    )
    fields = run_parallel(all_finite_kernel, job, torch.get_num_threads())
    return bool(fields[ALL_FINITE.n_not_finite] == 0)
