"""Choice between compiled kernels and torch."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from typing import Literal, get_args

import torch
from torch import Tensor

from cellvae.core.cpu_threads import count_processors
from cellvae.core.csr_batch import CSRBatch
from cellvae.core.log import logger
from cellvae.core.platform.device_kind import is_cuda, is_on_cpu
from cellvae.kernels.triton.first_use import is_available
from cellvae.settings import settings

Kernels = Literal["auto", "compiled", "torch"]
"""Values of `settings.kernels`."""
Kernel = Literal[
    "adam_step",
    "all_finite",
    "batch_norm_relu_dropout",
    "bernoulli_log_prob",
    "count_log_prob",
    "layer_norm_activation_dropout",
    "log1p_totals",
    "log_fold_change_summary",
    "mixture_log_prob",
    "sample_posterior",
    "sparse_linear",
]
"""Names of the kernels: `x` is the function `cellvae.kernels.x`, compiled in `compiled.x_numba`."""

MIN_GENES = 256
"""Number of genes below which a step is so short that loading the kernels does not pay."""
MIN_LAYER_SIZE = 1 << 13
"""Number of outputs of a hidden layer below which a kernel does not pay."""


def use_compiled(features: Tensor | CSRBatch, kernel: Kernel = "count_log_prob") -> bool:
    """Whether a computation on features, [cells, genes], uses compiled kernels.

    They support float32 on the CPU, outside autocast and `torch.compile`. `settings.kernels` is
    `"auto"` (from 256 genes on), `"compiled"` (wherever they are supported) or `"torch"` (never).
    """
    if isinstance(features, CSRBatch):
        values, shape = features.values, torch.Size((features.n_cells, features.n_genes))
    else:
        values, shape = features, features.shape
    if len(shape) != 2 or not is_supported(values):
        return False
    return settings.kernels == "compiled" or (shape[1] >= MIN_GENES and can_compile(kernel))


def has_count_kernel(counts: Tensor | CSRBatch) -> bool:
    """Whether :func:`~cellvae.kernels.count_log_prob` computes the log-probability of these counts.

    On the CPU as :func:`use_compiled`; on a CUDA device for dense float32 counts outside autocast
    and `torch.compile`, where Triton is installed.
    """
    return use_compiled(counts) or use_triton(counts)


def use_triton(counts: Tensor | CSRBatch) -> bool:
    """Whether the log-probability of counts is computed by a kernel of Triton."""
    if isinstance(counts, CSRBatch) or not is_cuda(counts.device) or settings.kernels == "torch":
        return False
    if counts.ndim != 2 or counts.dtype != torch.float32 or not counts.shape[1]:
        return False
    if torch.is_autocast_enabled(counts.device.type) or torch.compiler.is_compiling():
        return False
    return is_available(counts.device)


def can_fuse_layers(inputs: Tensor, n_columns: int) -> bool:
    """Whether the layers on features of cells may run as one kernel, if there are so many outputs.

    As :func:`use_compiled`, where `"auto"` is a matter of the size of the output. The statistics of
    one cell are left to torch.
    """
    if inputs.ndim != 2 or inputs.shape[0] < 2:
        return False
    if settings.kernels == "auto" and inputs.shape[0] * n_columns < MIN_LAYER_SIZE:
        return False
    return is_supported(inputs)


def is_supported(values: Tensor) -> bool:
    """Whether compiled kernels may be used and support a tensor, here and now."""
    if settings.kernels == "torch" or not is_on_cpu(values) or values.dtype != torch.float32:
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def compile_kernels(n_processes: int | None = None) -> dict[Kernel, bool]:
    """Compile all kernels, or load them from the cache, in several processes.

    Parameters
    ----------
    n_processes
        Processes at a time; by default as many as there are processors.

    Returns
    -------
    For each kernel whether it can be used on this machine.
    """
    kernels = get_args(Kernel)
    n_processes = min(n_processes or count_processors(), len(kernels))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
        return dict(zip(kernels, pool.map(can_compile, kernels), strict=True))


@cache
def can_compile(kernel: Kernel) -> bool:
    """Whether a kernel can be compiled on this machine, or loaded from the cache."""
    try:
        import_module(f"cellvae.kernels.compiled.{kernel}_numba")
    except (ImportError, OSError, RuntimeError) as failure:
        logger.info("Kernels cannot be compiled here, torch is used instead: %s", failure)
        return False
    return True
