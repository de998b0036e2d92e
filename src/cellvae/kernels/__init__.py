"""Compiled kernels: computations in one pass over memory that take torch many.

The function of a kernel `x`, with its gradients, is in a module `x`, those of layers in
`cellvae.kernels.layers` and those of log-probabilities in `cellvae.kernels.likelihoods`. What numba
compiles is in `cellvae.kernels.compiled.x_numba`, what Triton compiles for CUDA devices in
`cellvae.kernels.triton`. A kernel is compiled when it is first used and cached on
disk; numba is not imported before.
"""

from cellvae.kernels.adam_step import AdamTable, AdamWeights, adam_step, has_adam_kernel
from cellvae.kernels.all_finite import all_finite
from cellvae.kernels.dispatch import (
    Kernel,
    Kernels,
    can_fuse_layers,
    has_count_kernel,
    use_compiled,
)
from cellvae.kernels.layers.batch_norm_relu_dropout import batch_norm_relu_dropout
from cellvae.kernels.layers.layer_norm_activation_dropout import layer_norm_activation_dropout
from cellvae.kernels.layers.lazy_linear import LazyLinear, lazy_linear, materialize, stack_weights
from cellvae.kernels.layers.sample_posterior import PosteriorSample, sample_posterior
from cellvae.kernels.layers.sparse_linear import sparse_linear, to_gene_major
from cellvae.kernels.likelihoods.bernoulli_log_prob import bernoulli_log_prob
from cellvae.kernels.likelihoods.count_log_prob import count_log_prob
from cellvae.kernels.likelihoods.mixture_log_prob import mixture_log_prob
from cellvae.kernels.likelihoods.protein_elbo import ProteinElbo, ProteinInputs, protein_elbo
from cellvae.kernels.log1p_totals import log1p_totals
from cellvae.kernels.log_fold_change_summary import LogFoldChangeSummary, log_fold_change_summary

__all__ = [
    "AdamTable",
    "AdamWeights",
    "Kernel",
    "Kernels",
    "LazyLinear",
    "LogFoldChangeSummary",
    "PosteriorSample",
    "ProteinElbo",
    "ProteinInputs",
    "adam_step",
    "all_finite",
    "batch_norm_relu_dropout",
    "bernoulli_log_prob",
    "can_fuse_layers",
    "count_log_prob",
    "has_adam_kernel",
    "has_count_kernel",
    "layer_norm_activation_dropout",
    "lazy_linear",
    "log1p_totals",
    "log_fold_change_summary",
    "materialize",
    "mixture_log_prob",
    "protein_elbo",
    "sample_posterior",
    "sparse_linear",
    "stack_weights",
    "to_gene_major",
    "use_compiled",
]


def __dir__() -> list[str]:
    return sorted(__all__)
