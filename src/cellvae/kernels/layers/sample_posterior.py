"""Sample from the normal posterior of an encoder, from its last hidden features, with gradients."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cellvae.kernels.compiled.job_layouts import SamplePosteriorJob
from cellvae.kernels.openmp import choose_n_threads, run_parallel


class PosteriorSample(NamedTuple):
    """Normal posterior of each cell, a sample from it, and its divergence."""

    loc: Float[Tensor, "cells latent"]
    """Mean."""
    scale: Float[Tensor, "cells latent"]
    """Standard deviation."""
    sample: Float[Tensor, "cells latent"]
    """Mean plus noise times standard deviation."""
    kl: Float[Tensor, " cells"]
    """KL divergence from the standard normal distribution, in nats, summed over dimensions."""


def sample_posterior(
    hidden: Float[Tensor, "cells hidden"],
    mean_layer: nn.Linear,
    log_variance_layer: nn.Linear,
    *,
    var_eps: float,
    max_log_variance: float,
) -> PosteriorSample:
    """Sample from the normal distribution whose mean and log-variance are linear in features.

    Equal up to rounding to the two layers, `Normal(...).rsample()` with the same random numbers,
    and `kl_divergence`, one after the other (Kingma and Welling 2014, section 2.4 and appendix B).
    For float32 on the CPU.

    Parameters
    ----------
    hidden
        Output of the last hidden layer.
    mean_layer, log_variance_layer
        Linear layers, with bias.
    var_eps
        Added to the variance.
    max_log_variance
        Largest log-variance; larger ones are clamped.
    """
    noise = hidden.new_empty(hidden.shape[0], mean_layer.out_features).normal_()
    results = SamplePosterior.apply(
        hidden,
        mean_layer.weight,
        mean_layer.bias,
        log_variance_layer.weight,
        log_variance_layer.bias,
        noise,
        (var_eps, max_log_variance),
    )
    return PosteriorSample(*results)


class SamplePosterior(torch.autograd.Function):
    """Autograd function of :func:`sample_posterior`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        mean_weight: Tensor,
        mean_bias: Tensor,
        variance_weight: Tensor,
        variance_bias: Tensor,
        noise: Tensor,
        options: tuple[float, float],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, standard deviation and sample, [cells, latent] each, and divergence, [cells]."""
        from cellvae.kernels.compiled.sample_posterior_numba import sample_posterior_kernel

        ctx.set_materialize_grads(False)
        hidden, mean_weight, mean_bias, variance_weight, variance_bias = inputs = tuple(
            tensor.contiguous()
            for tensor in (hidden, mean_weight, mean_bias, variance_weight, variance_bias)
        )
        loc, scale, sample = (torch.empty_like(noise) for _ in range(3))
        kl, slopes = noise.new_empty(noise.shape[0]), noise.new_empty(2, *noise.shape)
        constants = array("d", options)
        n_cells, n_latent = noise.shape
        job = SamplePosteriorJob(
            next_item=0,
            n_cells=n_cells,
            n_hidden=hidden.shape[1],
            n_latent=n_latent,
            constants=constants.buffer_info()[0],
            hidden=hidden.data_ptr(),
            mean_weight=mean_weight.data_ptr(),
            mean_bias=mean_bias.data_ptr(),
            variance_weight=variance_weight.data_ptr(),
            variance_bias=variance_bias.data_ptr(),
            noise=noise.data_ptr(),
            loc=loc.data_ptr(),
            scale=scale.data_ptr(),
            sample=sample.data_ptr(),
            kl=kl.data_ptr(),
            slopes=slopes.data_ptr(),
            grad_loc=0,
            grad_scale=0,
            grad_sample=0,
            grad_kl=0,
            grad_hidden=0,
            grad_mean_weight=0,
            grad_mean_bias=0,
            grad_variance_weight=0,
            grad_variance_bias=0,
        )
        n_threads = choose_n_threads(n_cells)
        run_parallel(sample_posterior_kernel, job, n_threads)
        ctx.save_for_backward(*inputs, noise, loc, slopes)
        ctx.job, ctx.constants, ctx.n_threads = job, constants, n_threads
        return loc, scale, sample, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the hidden features and of the parameters of both layers."""
        from cellvae.kernels.compiled.sample_posterior_numba import sample_posterior_grad_kernel

        *inputs, noise, loc, slopes = ctx.saved_tensors
        known = [None if grad is None else grad.contiguous() for grad in grads]
        by_loc, by_scale, by_sample, by_kl = (0 if g is None else g.data_ptr() for g in known)
        results = [torch.empty_like(tensor) for tensor in inputs]
        job = ctx.job._replace(
            hidden=inputs[0].data_ptr(),
            mean_weight=inputs[1].data_ptr(),
            variance_weight=inputs[3].data_ptr(),
            noise=noise.data_ptr(),
            loc=loc.data_ptr(),
            slopes=slopes.data_ptr(),
            grad_loc=by_loc,
            grad_scale=by_scale,
            grad_sample=by_sample,
            grad_kl=by_kl,
            grad_hidden=results[0].data_ptr(),
            grad_mean_weight=results[1].data_ptr(),
            grad_mean_bias=results[2].data_ptr(),
            grad_variance_weight=results[3].data_ptr(),
            grad_variance_bias=results[4].data_ptr(),
        )
        run_parallel(sample_posterior_grad_kernel, job, ctx.n_threads)
        needed = zip(results, ctx.needs_input_grad, strict=False)
        return (*(result if needs else None for result, needs in needed), None, None)
