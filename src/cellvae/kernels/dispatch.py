"""Whether compiled kernels are used."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.log import logger
from cellvae.settings import settings

Kernels = Literal["auto", "compiled", "torch"]
Kernel = Literal[
    "isfinite",
    "count_log_prob",
    "log_fold_change",
    "bernoulli_log_prob",
    "sparse_linear",
    "mixture_log_prob",
]
"""Search for what is not finite; likelihood of counts, of fold changes, of detections or of counts
under a mixture; product of sparse features."""

MIN_GENES = 256
"""Genes below which a step is so short that loading the kernels does not pay."""


def use_compiled(features: Tensor | CSRBatch, kernel: Kernel = "count_log_prob") -> bool:
    """Whether what follows from these features, [cells, genes], is left to compiled kernels.

    They are made for single precision on the CPU. `settings.kernels` is `"auto"` (from 256 genes
    on), `"compiled"` (where they can be used at all) or `"torch"` (never).
    """
    chosen = settings.kernels
    if isinstance(features, CSRBatch):
        values, shape = features.values, torch.Size((features.n_cells, features.n_genes))
    else:
        values, shape = features, features.shape
    if chosen == "torch" or values.device.type != "cpu" or values.dtype != torch.float32:
        return False
    if len(shape) != 2 or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return chosen == "compiled" or (shape[1] >= MIN_GENES and can_compile(kernel))


@cache
def can_compile(kernel: Kernel) -> bool:
    """Whether a kernel can be compiled here, or read from where it was kept."""
    try:
        import_module(f"cellvae.kernels.compiled.{kernel}_numba")
    except (ImportError, OSError, RuntimeError) as failure:
        logger.info("Kernels cannot be compiled here, torch is used instead: %s", failure)
        return False
    return True
