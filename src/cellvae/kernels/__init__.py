"""Compiled mathematics: what torch does in many passes over memory, done in one.

Numba compiles at first use and keeps what it compiled on disk; nothing is loaded before.
"""

from cellvae.kernels.bernoulli_log_prob import detection_log_likelihood
from cellvae.kernels.count_log_prob import count_log_likelihood
from cellvae.kernels.dispatch import Kernels, use_compiled
from cellvae.kernels.isfinite import all_finite
from cellvae.kernels.lazy_linear import LazyLinear, materialize
from cellvae.kernels.log_fold_change import LogFoldChanges, log_fold_changes
from cellvae.kernels.mixture_log_prob import mixture_log_prob
from cellvae.kernels.sparse_linear import sparse_linear, to_gene_major

__all__ = [
    "LazyLinear",
    "LogFoldChanges",
    "Kernels",
    "all_finite",
    "use_compiled",
    "materialize",
    "detection_log_likelihood",
    "log_fold_changes",
    "to_gene_major",
    "count_log_likelihood",
    "mixture_log_prob",
    "sparse_linear",
]


def __dir__() -> list[str]:
    return sorted(__all__)
