"""Compiled mathematics: what torch does in many passes over memory, done in one.

Numba compiles at first use and keeps what it compiled on disk; nothing is loaded before.
"""

from cellvae.kernels.affine import Affine, computed
from cellvae.kernels.choice import Kernels, compiled_for
from cellvae.kernels.detection import detection_log_likelihood
from cellvae.kernels.finite import all_finite
from cellvae.kernels.fold_changes import FoldChanges, fold_changes
from cellvae.kernels.likelihood import log_likelihood
from cellvae.kernels.mixture import mixture_log_prob
from cellvae.kernels.product import gene_by_gene, sparse_product

__all__ = [
    "Affine",
    "FoldChanges",
    "Kernels",
    "all_finite",
    "compiled_for",
    "computed",
    "detection_log_likelihood",
    "fold_changes",
    "gene_by_gene",
    "log_likelihood",
    "mixture_log_prob",
    "sparse_product",
]


def __dir__() -> list[str]:
    return sorted(__all__)
