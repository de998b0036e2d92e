"""Figures from plain tables and arrays."""

from cellvae.plotting.calibration import calibration_curve
from cellvae.plotting.embedding import embedding
from cellvae.plotting.ppc import ppc_scatter
from cellvae.plotting.training_curves import training_curve, training_curves
from cellvae.plotting.volcano import volcano

__all__ = [
    "calibration_curve",
    "embedding",
    "ppc_scatter",
    "training_curve",
    "training_curves",
    "volcano",
]


def __dir__() -> list[str]:
    return sorted(__all__)
