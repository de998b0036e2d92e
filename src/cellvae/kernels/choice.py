"""Whether compiled kernels are used."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cellvae.settings import settings

Kernels = Literal["auto", "compiled", "torch"]

FEWEST_GENES = 256
"""Genes below which a step is so short that loading the kernels does not pay."""


def compiled_for(features: Tensor) -> bool:
    """Whether what follows from these features, [cells, genes], is left to compiled kernels.

    They are made for single precision on the CPU. `settings.kernels` is `"auto"` (from 256 genes
    on), `"compiled"` (where they can be used at all) or `"torch"` (never).
    """
    chosen = settings.kernels
    if chosen == "torch" or features.device.type != "cpu" or features.dtype != torch.float32:
        return False
    if features.ndim != 2 or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return chosen == "compiled" or features.shape[1] >= FEWEST_GENES
