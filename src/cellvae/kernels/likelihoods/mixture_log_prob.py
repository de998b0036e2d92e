"""Log-probability of counts under a mixture of two negative binomials, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.kernels.compiled.job_layouts import MixtureLogProbJob
from cellvae.kernels.likelihoods.count_log_prob import MAX_INVERSE_DISPERSION, MIN_MEAN
from cellvae.kernels.openmp import choose_n_threads, run_parallel


def mixture_log_prob(
    counts: Float[Tensor, "cells features"],
    mu1: Float[Tensor, "#cells #features"],
    mu2: Float[Tensor, "#cells #features"],
    theta1: Float[Tensor, "#cells #features"],
    theta2: Float[Tensor, "#cells #features"],
    logits: Float[Tensor, "#cells #features"],
) -> Float[Tensor, "cells features"]:
    """Log-probability of each count, in nats, with its gradients computed in the same pass.

    Equal to `log_prob` of :class:`~cellvae.distributions.NegativeBinomialMixture` up to rounding.
    For float32 on the CPU.

    Parameters
    ----------
    counts
        Counts.
    mu1, mu2, theta1, theta2
        Means and inverse dispersions of the components.
    logits
        Log-odds of a count belonging to the first component.
    """
    log_prob: Tensor = MixtureLogProb.apply(counts, mu1, mu2, theta1, theta2, logits)
    return log_prob


class MixtureLogProb(torch.autograd.Function):
    """Autograd function of :func:`mixture_log_prob`; its forward pass saves the gradients."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, *parameters: Tensor) -> Tensor:
        """Log-probability, in nats."""
        from cellvae.kernels.compiled.mixture_log_prob_numba import mixture_log_prob_kernel

        names = ("mu1", "mu2", "theta1", "theta2", "logits")
        inputs = dict(zip(names, parameters, strict=True))
        for name in ("theta1", "theta2"):
            inputs[name] = inputs[name].clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
        inputs = {
            name: tensor.expand(counts.shape).contiguous()
            for name, tensor in (("counts", counts), *inputs.items())
        }
        log_prob = torch.empty_like(inputs["counts"])
        grads = {f"grad_{name}": torch.empty_like(log_prob) for name in names}
        n_cells, n_features = counts.shape
        addresses = {name: tensor.data_ptr() for name, tensor in {**inputs, **grads}.items()}
        job = MixtureLogProbJob(
            next_cell=0,
            n_cells=n_cells,
            n_features=n_features,
            log_prob=log_prob.data_ptr(),
            **addresses,
        )
        run_parallel(mixture_log_prob_kernel, job, choose_n_threads(n_cells))
        ctx.save_for_backward(*grads.values())
        ctx.shapes = [parameter.shape for parameter in parameters]
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the means, inverse dispersions and log-odds."""
        grads = [
            (grad * grad_output).sum_to_size(shape) if needs_grad else None
            for grad, shape, needs_grad in zip(
                ctx.saved_tensors, ctx.shapes, ctx.needs_input_grad[1:], strict=True
            )
        ]
        return None, *grads
