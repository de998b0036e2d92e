"""Normal posterior from the last hidden layer of an encoder."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributions import Normal

from cellvae.contracts import SampledNormal
from cellvae.core.platform.torch_adapter import has_hooks
from cellvae.kernels import can_fuse_layers, sample_posterior
from cellvae.kernels.dispatch import can_compile

MAX_LOG_VARIANCE = 40.0
"""Largest log-variance: the square of its exponential is finite in float32."""
VAR_EPS = 1e-4
"""Added to the variance, for numerical stability."""


def bounded_exp(log_variance: Tensor) -> Tensor:
    """Exponential of a log-variance; it and its square stay finite for cells with huge counts."""
    return log_variance.clamp(max=MAX_LOG_VARIANCE).exp()


def sampled_normal_posterior(
    hidden: Float[Tensor, "cells hidden"],
    mean_layer: nn.Module,
    log_variance_layer: nn.Module,
    var_eps: float = VAR_EPS,
) -> tuple[Normal, Float[Tensor, "cells latent"]]:
    """Distribution of :func:`normal_posterior`, and a sample from it.

    In training on the CPU both and the divergence are one kernel
    (:func:`~cellvae.kernels.sample_posterior`).
    """
    if (
        torch.is_grad_enabled()
        and can_fuse_layers(hidden, hidden.shape[-1])
        and can_fuse_heads(hidden, mean_layer, log_variance_layer)
        and can_compile("sample_posterior")
    ):
        assert isinstance(mean_layer, nn.Linear) and isinstance(log_variance_layer, nn.Linear)
        loc, scale, sample, kl = sample_posterior(
            hidden,
            mean_layer,
            log_variance_layer,
            var_eps=var_eps,
            max_log_variance=MAX_LOG_VARIANCE,
        )
        return SampledNormal(loc, scale, kl), sample
    posterior = normal_posterior(hidden, mean_layer, log_variance_layer, var_eps)
    return posterior, posterior.rsample()


def normal_posterior(
    hidden: Float[Tensor, "*samples cells hidden"],
    mean_layer: nn.Module,
    log_variance_layer: nn.Module,
    var_eps: float = VAR_EPS,
) -> Normal:
    """Normal distribution whose mean and log-variance are linear in the hidden features.

    Parameters
    ----------
    hidden
        Output of the last hidden layer.
    mean_layer, log_variance_layer
        Linear layers.
    var_eps
        Added to the variance.
    """
    if can_fuse_heads(hidden, mean_layer, log_variance_layer):
        loc, scale = NormalPosterior.apply(
            hidden,
            mean_layer.weight,
            mean_layer.bias,
            log_variance_layer.weight,
            log_variance_layer.bias,
            var_eps,
        )
    else:
        loc = mean_layer(hidden)
        scale = (bounded_exp(log_variance_layer(hidden)) + var_eps).sqrt()
    return Normal(loc, scale, validate_args=False)


def can_fuse_heads(hidden: Tensor, *layers: nn.Module) -> bool:
    """Whether layers on the same features may run as one autograd function.

    They must be plain linear layers: hooks and adapters (LoRA) expect a layer to be called.
    """
    if hidden.ndim != 2 or torch.compiler.is_compiling():
        return False
    device = hidden.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return False
    return all(
        type(layer) is nn.Linear and layer.bias is not None and not has_hooks(layer)
        for layer in layers
    )


class NormalPosterior(torch.autograd.Function):
    """Autograd function of :func:`normal_posterior`: one node in place of seven."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        mean_weight: Tensor,
        mean_bias: Tensor,
        variance_weight: Tensor,
        variance_bias: Tensor,
        var_eps: float,
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, [cells, latent] each."""
        loc = torch.addmm(mean_bias, hidden, mean_weight.t())
        variance = torch.addmm(variance_bias, hidden, variance_weight.t())
        variance.clamp_(max=MAX_LOG_VARIANCE).exp_()
        scale = variance.add(var_eps).sqrt_()
        ctx.save_for_backward(hidden, mean_weight, variance_weight, variance, scale)
        return loc, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loc: Tensor, grad_scale: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the hidden features and of the parameters of both layers."""
        hidden, mean_weight, variance_weight, variance, scale = ctx.saved_tensors
        # The derivative of the standard deviation by the log-variance; none where it was clamped.
        slope = (variance / scale).mul_(0.5).mul_(variance < math.exp(MAX_LOG_VARIANCE))
        grad_log_variance = grad_scale * slope
        needs = ctx.needs_input_grad
        grad_hidden = None
        if needs[0]:
            grad_hidden = torch.addmm(grad_loc @ mean_weight, grad_log_variance, variance_weight)
        return (
            grad_hidden,
            grad_loc.t() @ hidden if needs[1] else None,
            grad_loc.sum(dim=0) if needs[2] else None,
            grad_log_variance.t() @ hidden if needs[3] else None,
            grad_log_variance.sum(dim=0) if needs[4] else None,
            None,
        )
