"""Terms of the ELBO that proteins with background and foreground have, with their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.kernels.compiled.job_layouts import ProteinElboJob
from cellvae.kernels.likelihoods.count_log_prob import MAX_INVERSE_DISPERSION, MIN_MEAN
from cellvae.kernels.openmp import choose_n_threads, run_parallel


class ProteinInputs(NamedTuple):
    """What :func:`protein_elbo` reads of a batch of cells."""

    counts: Float[Tensor, "cells proteins"]
    noise: Float[Tensor, "cells proteins"]
    """Standard normal noise of the log mean of the background."""
    batch: Int[Tensor, "cells 1"]
    panel: Int[Tensor, "cells 1"]
    measured: Bool[Tensor, "panels proteins"]
    penalty: Float[Tensor, ""]
    """Weight of the log-probability of background."""
    loc: Float[Tensor, "cells proteins"]
    """Mean of the log mean of the background."""
    scale: Float[Tensor, "cells proteins"]
    """Standard deviation of the log mean of the background."""
    ratio: Float[Tensor, "cells proteins"]
    """Mean of the foreground divided by that of the background."""
    logits: Float[Tensor, "cells proteins"]
    """Log-odds of a count being background."""
    theta: Float[Tensor, " proteins"] | Float[Tensor, "cells proteins"]
    """Inverse dispersion."""
    log_efficiency: Float[Tensor, "proteins batches"]
    """Natural logarithm of the capture efficiency."""
    prior_loc: Float[Tensor, "proteins panels"]
    """Mean of the prior of the log mean of the background."""
    prior_log_scale: Float[Tensor, "proteins panels"]
    """Natural logarithm of the standard deviation of that prior."""


N_CONSTANTS = ProteinInputs._fields.index("loc")
"""Number of inputs, the first ones, without a gradient."""


class ProteinElbo(NamedTuple):
    """Terms of the ELBO of each cell."""

    log_prob: Float[Tensor, " cells"]
    """Log-probability of the measured counts; nats."""
    kl: Float[Tensor, " cells"]
    """KL divergence of the background of measured proteins, and, of all proteins, the negative
    log-density of the efficiencies and the weighted log-probability of background; nats."""


def protein_elbo(inputs: ProteinInputs) -> ProteinElbo:
    """Log-likelihood of proteins, and the terms that their latent background has in the ELBO.

    Equal, up to rounding, to the log-probability of
    :class:`~cellvae.distributions.NegativeBinomialMixture` at the background mean
    `exp(loc + scale * noise + log_efficiency)` and at that mean times `ratio`; and to
    `kl_divergence` of both normal distributions with the terms that :class:`ProteinElbo` names.
    For float32 on the CPU; in one pass, where torch makes about eighty over small arrays.
    """
    log_prob, kl = ProteinElboFunction.apply(*inputs)
    return ProteinElbo(log_prob, kl)


class ProteinElboFunction(torch.autograd.Function):
    """Autograd function of :func:`protein_elbo`; derivatives are computed in its forward pass."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms of each cell, in nats."""
        from cellvae.kernels.compiled.mixture_log_prob_numba import protein_elbo_kernel

        inputs = ProteinInputs(*(tensor.contiguous() for tensor in tensors))
        theta = inputs.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
        inputs = inputs._replace(theta=theta.view(-1, inputs.counts.shape[1]))
        terms = inputs.counts.new_empty(2, len(inputs.counts))
        slopes = inputs.counts.new_empty(4, *inputs.counts.shape)
        job = make_job(inputs, terms=terms, slopes=slopes)
        run_parallel(protein_elbo_kernel, job, choose_n_threads(len(inputs.counts)))
        ctx.save_for_backward(slopes, *inputs)
        ctx.theta_shape = tensors[ProteinInputs._fields.index("theta")].shape
        log_prob, kl = terms
        return log_prob, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_prob: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what the decoder predicts, and of the parameters of the proteins."""
        from cellvae.kernels.compiled.mixture_log_prob_numba import protein_elbo_grad_kernel

        slopes, *tensors = ctx.saved_tensors
        inputs = ProteinInputs(*tensors)
        terms = torch.stack([grad_log_prob, grad_kl])
        names = ProteinInputs._fields[N_CONSTANTS:]
        grads = inputs._replace(**{name: torch.empty_like(getattr(inputs, name)) for name in names})
        job = make_job(inputs, terms=terms, slopes=slopes, grads=grads)
        # Sums over cells, in order: on one thread.
        run_parallel(protein_elbo_grad_kernel, job, 1)
        grads = grads._replace(theta=grads.theta.view(ctx.theta_shape))
        return (None,) * N_CONSTANTS + grads[N_CONSTANTS:]


def make_job(
    inputs: ProteinInputs, *, terms: Tensor, slopes: Tensor, grads: ProteinInputs | None = None
) -> ProteinElboJob:
    """Job of one of both kernels; without addresses of gradients for that of the forward pass."""
    n_cells, n_proteins = inputs.counts.shape
    addresses = {name: tensor.data_ptr() for name, tensor in inputs._asdict().items()}
    for name in ProteinInputs._fields[N_CONSTANTS:]:
        addresses[f"grad_{name}"] = 0 if grads is None else getattr(grads, name).data_ptr()
    return ProteinElboJob(
        next_cell=0,
        n_cells=n_cells,
        n_proteins=n_proteins,
        n_batches=inputs.log_efficiency.shape[1],
        n_panels=inputs.prior_loc.shape[1],
        n_theta_rows=len(inputs.theta),
        terms=terms.data_ptr(),
        slopes=slopes.data_ptr(),
        **addresses,
    )
