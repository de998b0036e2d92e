"""Log-probability of counts under a mixture of two negative binomials, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.kernels.count_log_prob import MAX_INVERSE_DISPERSION, MIN_MEAN


def mixture_log_prob(
    counts: Float[Tensor, "cells features"],
    mu1: Float[Tensor, "#cells #features"],
    mu2: Float[Tensor, "#cells #features"],
    theta1: Float[Tensor, "#cells #features"],
    theta2: Float[Tensor, "#cells #features"],
    logits: Float[Tensor, "#cells #features"],
) -> Float[Tensor, "cells features"]:
    """Log-probability of each count, in nats, in one pass that leaves the gradient too.

    The same as `log_prob` of :class:`~cellvae.distributions.NegativeBinomialMixture`. On the CPU,
    in single precision.

    Parameters
    ----------
    counts
        Counts.
    mu1, mu2, theta1, theta2
        Means and inverse dispersions of the components.
    logits
        Log-odds of a count belonging to the first component.
    """
    value: Tensor = MixtureLogProb.apply(counts, mu1, mu2, theta1, theta2, logits)
    return value


class MixtureLogProb(torch.autograd.Function):
    """Log-probability of each count; the derivatives are computed along with it and kept."""

    @staticmethod
    def forward(ctx: Any, counts: Tensor, *parameters: Tensor) -> Tensor:
        """Log-probability, in nats."""
        from cellvae.kernels.compiled.mixture_log_prob_numba import kernel
        from cellvae.kernels.openmp import run_parallel

        n_cells, n_features = counts.shape
        mu1, mu2, theta1, theta2, logits = parameters
        given = (
            mu1,
            mu2,
            theta1.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION),
            theta2.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION),
            logits,
        )
        tensors = [t.expand(counts.shape).contiguous() for t in (counts, *given)]
        results = [torch.empty_like(tensors[0]) for _ in range(6)]
        addresses = [tensor.data_ptr() for tensor in (*tensors, *results)]
        job = np.array([0, n_cells, n_features, 0, *addresses], dtype=np.int64)
        job[3] = job.ctypes.data
        run_parallel(kernel, job, n_cells)
        value, *slopes = results
        ctx.save_for_backward(*slopes)
        ctx.shapes = [parameter.shape for parameter in parameters]
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient with respect to means, inverse dispersions and log-odds."""
        gradients = [
            (slopes * grad).sum_to_size(shape) if needed else None
            for slopes, shape, needed in zip(
                ctx.saved_tensors, ctx.shapes, ctx.needs_input_grad[1:], strict=True
            )
        ]
        return None, *gradients
