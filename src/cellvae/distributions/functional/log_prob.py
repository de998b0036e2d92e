"""Log-probabilities of counts as autograd functions, with gradients in closed form."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.distributions.functional.stirling import (
    HALF_LOG_TWO_PI,
    digamma_minus_log,
    falling_product,
    stirling_for,
    stirling_sum,
)

MIN_MEAN = 1e-20
"""Mean or inverse dispersion used in place of zero: its reciprocal is finite in float32."""
MAX_INVERSE_DISPERSION = 1e15
"""Inverse dispersion used in place of infinity: the distribution is Poisson far below it."""


class NegativeBinomialLogProb(torch.autograd.Function):
    r"""Log-probability of counts x under a mean :math:`\mu` and inverse dispersion :math:`\theta`.

    The recurrence of the gamma function shifts its arguments up by k, to :math:`X = x + k`,
    :math:`T = \theta + k` and :math:`B = x + \theta + k`, where Stirling's series is short. Only
    two terms are then large,

    .. math::

        - x \log\frac{X (\mu + \theta)}{\mu B} + \theta \log\frac{\theta B}{T (\mu + \theta)},

    as in the saddle-point form of Loader (2000), "Fast and accurate computation of binomial
    probabilities": no large numbers are subtracted, from tiny :math:`\theta` to the Poisson limit.
    The gradient needs no digamma function, and there are no masks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Float[Tensor, "*#draws"],
        mu: Float[Tensor, "*#draws"],
        theta: Float[Tensor, "*#draws"],
    ) -> Float[Tensor, "*#draws"]:
        """Log-probability, in nats."""
        theta = theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
        wide, _, _ = torch.broadcast_tensors(value, mu, theta)
        total = wide + theta
        stirling = stirling_for(total.dtype)
        shift = stirling.shift
        inverse_x = (value + shift).reciprocal_()
        inverse_t = (theta + shift).reciprocal_()
        high = total + shift
        inverse_b = high.reciprocal()

        steps = torch.mul(high, inverse_x).sqrt_().mul_(falling_product(inverse_x, stirling))
        steps.div_(falling_product(inverse_b, stirling).mul_(total))
        steps.mul_(falling_product(inverse_t, stirling).mul_(inverse_t.sqrt()).mul_(theta))
        small = steps.log_().add_(stirling_sum(inverse_b, stirling))
        small.sub_(stirling_sum(inverse_x, stirling))
        small.sub_(stirling_sum(inverse_t, stirling).add_(HALF_LOG_TWO_PI - shift))
        small.mul_(value.sign())

        error = wide - mu
        x_term = (error + shift).mul_(theta).mul_(inverse_b).div_(mu.clamp(min=MIN_MEAN))
        x_term = x_term.clamp_(min=torch.finfo(x_term.dtype).eps - 1).log1p_().mul_(value)
        error.mul_(theta).sub_(mu, alpha=shift)
        sign = error.sign()
        denominator = torch.minimum((mu + theta).div_(inverse_t), high.mul_(theta))
        log_theta_ratio = error.abs_().div_(denominator).log1p_().mul_(sign)
        ctx.save_for_backward(wide, mu, theta, log_theta_ratio)
        return small.sub_(x_term).add_(log_theta_ratio * theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        """Gradient with respect to the mean and the inverse dispersion."""
        value, mu, theta, log_theta_ratio = ctx.saved_tensors
        grad_mu = grad_theta = None
        if ctx.needs_input_grad[1]:
            mean = mu.clamp(min=MIN_MEAN)
            slope = (value - mean).div_(mean).mul_(theta / (mean + theta))
            grad_mu = slope.mul_(grad).sum_to_size(mu.shape)
        if ctx.needs_input_grad[2]:
            stirling = stirling_for(log_theta_ratio.dtype)
            slope = digamma_minus_log(value + theta, stirling)
            slope.sub_(digamma_minus_log(theta, stirling)).add_(log_theta_ratio)
            slope.sub_((value - mu).div_(mu + theta))
            grad_theta = slope.mul_(grad).sum_to_size(theta.shape)
        return None, grad_mu, grad_theta


class PoissonLogProb(torch.autograd.Function):
    """Log-probability of counts under a Poisson distribution."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Float[Tensor, "*#draws"],
        rate: Float[Tensor, "*#draws"],
    ) -> Float[Tensor, "*#draws"]:
        """Log-probability, in nats."""
        ctx.save_for_backward(value, rate)
        error = value - rate
        stirling = stirling_for(error.dtype)
        inverse = (value + stirling.shift).reciprocal_()
        small = falling_product(inverse, stirling).mul_(inverse.sqrt()).log_()
        small.sub_(stirling_sum(inverse, stirling)).add_(stirling.shift - HALF_LOG_TWO_PI)
        x_term = (error + stirling.shift).div_(rate.clamp(min=MIN_MEAN))
        x_term = x_term.clamp_(min=torch.finfo(x_term.dtype).eps - 1).log1p_().mul_(value)
        return error.sub_(x_term).add_(small.mul_(value.sign()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Gradient with respect to the rate."""
        value, rate = ctx.saved_tensors
        mean = rate.clamp(min=MIN_MEAN)
        return None, (value - mean).div_(mean).mul_(grad).sum_to_size(rate.shape)


class ZeroInflatedLogProb(torch.autograd.Function):
    r"""Log-probability of zero-inflated counts.

    With the log-probability p of a count without zero inflation, and the logit l of a structural
    zero, it is :math:`p - \log(1 + e^l)` for a positive count and
    :math:`\log(e^l + e^p) - \log(1 + e^l)` for zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Float[Tensor, "*#draws"],
        log_prob: Float[Tensor, "*#draws"],
        logits: Float[Tensor, "*#draws"],
    ) -> Float[Tensor, "*#draws"]:
        """Log-probability, in nats."""
        ctx.save_for_backward(value, log_prob, logits)
        is_zero = 1 - value.sign()
        larger = torch.lerp(log_prob, torch.maximum(log_prob, logits), is_zero)
        smaller = (log_prob - logits).abs_().neg_().exp_().mul_(is_zero).add_(1)
        smaller.div_(logits.abs().neg_().exp_().add_(1)).log_()
        return larger.sub_(logits.clamp(min=0)).add_(smaller)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        """Gradient with respect to the log-probability and the logits."""
        value, log_prob, logits = ctx.saved_tensors
        structural = (logits - log_prob).sigmoid_().mul_(1 - value.sign())
        grad_log_prob = (1 - structural).mul_(grad).sum_to_size(log_prob.shape)
        grad_logits = structural.sub_(logits.sigmoid()).mul_(grad).sum_to_size(logits.shape)
        return None, grad_log_prob, grad_logits
