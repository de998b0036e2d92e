"""Normal distribution with a normalized mean, and its divergence from the standard normal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from cellvae.contracts import SampledNormal
from cellvae.distributions.protocol import pick_mean


class Normal(torch.distributions.Normal):
    """Normal distribution that stores a normalized mean.

    Parameters
    ----------
    mu
        Mean.
    scale
        Standard deviation.
    validate_args
        Whether to check parameters and values; on a GPU this waits for the device.
    normal_mu
        Normalized mean; stored for users and not used in any computation.

    Examples
    --------
    >>> import torch
    >>> values = Normal(torch.tensor(2.0), torch.tensor(1.0), normal_mu=torch.tensor(0.5))
    >>> values.get_normalized("mu"), values.get_normalized("scale")
    (tensor(2.), tensor(0.5000))
    """

    def __init__(
        self,
        mu: Float[Tensor, "*#batch"],
        scale: Float[Tensor, "*#batch"],
        validate_args: bool | None = False,
        normal_mu: Float[Tensor, "*#batch"] | None = None,
    ) -> None:
        super().__init__(mu, scale, validate_args=validate_args)
        self.normal_mu = normal_mu

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Normal:
        """Same distribution with its parameters broadcast to a larger shape."""
        shape = torch.Size(batch_shape)
        new: Normal = self._get_checked_instance(Normal, _instance)
        new.normal_mu = None if self.normal_mu is None else self.normal_mu.expand(shape)
        super().expand(shape, new)
        return new

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean for "mu", normalized mean (not the standard deviation) for "scale"."""
        return pick_mean(key, self.loc, self.normal_mu)


def kl_of_cells(posterior: torch.distributions.Normal) -> Float[Tensor, "*cells"]:
    """KL divergence of posteriors from the standard normal, in nats, summed over dimensions.

    It is not computed again if it was together with a sample.
    """
    if isinstance(posterior, SampledNormal):
        return posterior.kl
    return kl_to_standard_normal(posterior).sum(dim=-1)


def kl_to_standard_normal(posterior: torch.distributions.Normal) -> Float[Tensor, "*cells latent"]:
    r"""KL divergence of normal distributions from the standard normal by dimension, in nats.

    .. math:: (\mu^2 + \sigma^2 - 1) / 2 - \log \sigma

    Equal to `torch.distributions.kl_divergence`, but without tensors of zeros and ones that would
    be created on the device in every step (Kingma and Welling 2014, appendix B).
    """
    divergence: Tensor = KLToStandardNormal.apply(posterior.loc, posterior.scale)
    return divergence


class KLToStandardNormal(torch.autograd.Function):
    """Autograd function of :func:`kl_to_standard_normal`: one node instead of seven."""

    @staticmethod
    def forward(ctx: Any, loc: Tensor, scale: Tensor) -> Tensor:
        """Divergence of each dimension."""
        ctx.save_for_backward(loc, scale)
        return loc.square().add(scale.square()).sub_(1).div_(2).sub_(scale.log())

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of mean and standard deviation."""
        loc, scale = ctx.saved_tensors
        return grad_output * loc, grad_output * scale - grad_output / scale
