"""Divergence of a posterior from the standard normal distribution, in closed form."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal


def kl_to_standard_normal(posterior: Normal) -> Float[Tensor, "*cells latent"]:
    r"""KL of normal distributions from the standard normal, each dimension by itself, in nats.

    .. math:: (\mu^2 + \sigma^2 - 1) / 2 - \log \sigma

    The same as `torch.distributions.kl_divergence`, with no constants to be made on the device at
    every step (Kingma and Welling 2014, appendix B).
    """
    scale = posterior.scale
    return (posterior.loc.square() + scale.square() - 1) / 2 - scale.log()
