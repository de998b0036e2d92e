"""Types shared by all folders: rows of cells, step blocks, latent, loss, and base networks."""

from cellvae.contracts.generative_module import GenerativeModule
from cellvae.contracts.latent import (
    MIN_LIBRARY_SIZE,
    CountLatent,
    Latent,
    SampledNormal,
    map_latent,
    map_samples,
)
from cellvae.contracts.loss import Loss, sum_parts
from cellvae.contracts.module import Module
from cellvae.contracts.rows import B, B_co, Rows, StepBlock, to_device

__all__ = [
    "B",
    "B_co",
    "CountLatent",
    "GenerativeModule",
    "Latent",
    "Loss",
    "MIN_LIBRARY_SIZE",
    "Module",
    "Rows",
    "SampledNormal",
    "StepBlock",
    "map_latent",
    "map_samples",
    "sum_parts",
    "to_device",
]
