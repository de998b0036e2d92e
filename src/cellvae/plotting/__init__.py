"""Figures from tables and arrays."""

from cellvae.plotting.calibration import calibration_curve
from cellvae.plotting.embedding import embedding
from cellvae.plotting.layout import UMAPResult, compute_umap, umap
from cellvae.plotting.ppc import ppc_scatter
from cellvae.plotting.search_curves import search_curves
from cellvae.plotting.training_curves import training_curve, training_curves
from cellvae.plotting.volcano import volcano

__all__ = [
    "UMAPResult",
    "calibration_curve",
    "compute_umap",
    "embedding",
    "ppc_scatter",
    "search_curves",
    "training_curve",
    "training_curves",
    "umap",
    "volcano",
]


def __dir__() -> list[str]:
    return sorted(__all__)
