"""Which computations a device gets, and CPU tensors that get those of CUDA tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

n_emulations = 0
"""Number of open contexts of :func:`emulate_cuda`."""


def is_cpu(device: torch.device) -> bool:
    """Whether tensors of a device get what is made for the CPU: kernels, and reads at any time."""
    return device.type == "cpu" and not n_emulations


def is_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether a tensor gets what is made for the CPU, as :func:`is_cpu` of its device; faster."""
    return tensor.is_cpu and not n_emulations


def is_cuda(device: torch.device) -> bool:
    """Whether tensors of a device get what is made for CUDA: nothing is read within an epoch."""
    return device.type == "cuda" or (device.type == "cpu" and n_emulations > 0)


@contextmanager
def emulate_cuda() -> Iterator[None]:
    """Context in which CPU tensors take the path of CUDA tensors, for tests without a device."""
    global n_emulations
    n_emulations += 1
    try:
        yield
    finally:
        n_emulations -= 1
