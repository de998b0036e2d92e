"""Choice between compiled kernels and torch."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.log import logger
from cellvae.core.platform.device_kind import is_cpu
from cellvae.settings import settings

Kernels = Literal["auto", "compiled", "torch"]
"""Values of `settings.kernels`."""
Kernel = Literal[
    "all_finite",
    "bernoulli_log_prob",
    "count_log_prob",
    "log_fold_change_summary",
    "mixture_log_prob",
    "sparse_linear",
]
"""Names of the kernels: `x` is the function `cellvae.kernels.x`, compiled in `compiled.x_numba`."""

MIN_GENES = 256
"""Number of genes below which a step is so short that loading the kernels does not pay."""


def use_compiled(features: Tensor | CSRBatch, kernel: Kernel = "count_log_prob") -> bool:
    """Whether a computation on features, [cells, genes], uses compiled kernels.

    They support float32 on the CPU, outside autocast and `torch.compile`. `settings.kernels` is
    `"auto"` (from 256 genes on), `"compiled"` (wherever they are supported) or `"torch"` (never).
    """
    choice = settings.kernels
    if isinstance(features, CSRBatch):
        values, shape = features.values, torch.Size((features.n_cells, features.n_genes))
    else:
        values, shape = features, features.shape
    if choice == "torch" or not is_cpu(values.device) or values.dtype != torch.float32:
        return False
    if len(shape) != 2 or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return choice == "compiled" or (shape[1] >= MIN_GENES and can_compile(kernel))


@cache
def can_compile(kernel: Kernel) -> bool:
    """Whether a kernel can be compiled on this machine, or loaded from the cache."""
    try:
        import_module(f"cellvae.kernels.compiled.{kernel}_numba")
    except (ImportError, OSError, RuntimeError) as failure:
        logger.info("Kernels cannot be compiled here, torch is used instead: %s", failure)
        return False
    return True
