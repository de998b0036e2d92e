"""Negative binomial distribution of counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution, Gamma, constraints

from cellvae.distributions.functional.log_prob import (
    MAX_INVERSE_DISPERSION,
    MIN_MEAN,
    NegativeBinomialLogProb,
)
from cellvae.distributions.protocol import pick_mean
from cellvae.errors import InvalidOptionError

MAX_RATE = 1e8
"""Largest Poisson rate in a sample; float32 does not represent all integers up to there."""


class NegativeBinomial(Distribution):
    r"""Negative binomial distribution: counts with variance :math:`\mu + \mu^2 / \theta`.

    It is parametrized by its mean and inverse dispersion, or as the number of successes before
    `total_count` failures, as in `torch.distributions.NegativeBinomial`: :math:`\theta` is
    `total_count` and :math:`\mu / \theta` the odds of success.

    Parameters may have any shapes that broadcast. Pass an inverse dispersion per gene with the
    shape [genes]: functions of it alone are then computed once per gene.

    Parameters
    ----------
    total_count
        Number of failures, a positive real number.
    probs
        Probability of success, below 1.
    logits
        Log-odds of success.
    mu
        Mean, in counts.
    theta
        Inverse dispersion: large values approach the Poisson distribution.
    scale
        Normalized mean, for example the fraction of the counts of a cell that a gene has. It is
        stored for users and not used in any computation.
    validate_args
        Whether to check parameters and counts; on a GPU this waits for the device.

    Raises
    ------
    InvalidOptionError
        If the parameters belong to neither parametrization, or to both.

    Examples
    --------
    >>> import torch
    >>> counts = NegativeBinomial(mu=torch.tensor([1.0, 10.0]), theta=torch.tensor(2.0))
    >>> counts.variance
    tensor([ 1.5000, 60.0000])
    >>> counts.log_prob(torch.zeros(2)).exp()
    tensor([0.4444, 0.0278])
    """

    arg_constraints = {"mu": constraints.nonnegative, "theta": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(
        self,
        total_count: Float[Tensor, "*#batch"] | None = None,
        probs: Float[Tensor, "*#batch"] | None = None,
        logits: Float[Tensor, "*#batch"] | None = None,
        mu: Float[Tensor, "*#batch"] | None = None,
        theta: Float[Tensor, "*#batch"] | None = None,
        scale: Float[Tensor, "*#batch"] | None = None,
        validate_args: bool | None = False,
    ) -> None:
        mu, theta = mean_and_dispersion(total_count, probs, logits, mu, theta)
        self.mu, self.theta = torch.broadcast_tensors(mu, theta)
        self._narrow_theta, self.scale = theta, scale
        super().__init__(self.mu.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: Sequence[int], _instance: Distribution | None = None
    ) -> NegativeBinomial:
        """Same distribution with its parameters broadcast to a larger shape."""
        shape = torch.Size(batch_shape)
        new: NegativeBinomial = self._get_checked_instance(NegativeBinomial, _instance)
        new.mu, new.theta = self.mu.expand(shape), self.theta.expand(shape)
        new.scale = None if self.scale is None else self.scale.expand(shape)
        new._narrow_theta = self._narrow_theta
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Mean, in counts."""
        return self.mu

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Variance, in squared counts."""
        return self.mu + self.mu.square() / self.theta

    @property
    def mode(self) -> Float[Tensor, "*batch"]:
        """Most probable count."""
        return (self.mu * (1 - self.theta.reciprocal())).floor().clamp(min=0)

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean of the counts for "mu", normalized mean for "scale"."""
        return pick_mean(key, self.mu, self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*draws"]:
        """Random counts; Poisson rates above 10^8 are replaced by 10^8."""
        size = torch.Size(sample_shape)
        theta = self.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
        rate = Gamma(theta, theta / self.mu, validate_args=False).sample(size)
        return torch.poisson(rate.clamp(max=MAX_RATE))

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*draws"]:
        """Log-probability of counts, in nats, in float32 or wider."""
        if self._validate_args:
            self._validate_sample(value)
        mu, theta = self.mu, self._narrow_theta
        dtype = torch.promote_types(torch.promote_types(mu.dtype, theta.dtype), torch.float32)
        log_prob: Tensor = NegativeBinomialLogProb.apply(
            value.to(dtype), mu.to(dtype), theta.to(dtype)
        )
        return log_prob


def mean_and_dispersion(
    total_count: Tensor | None,
    probs: Tensor | None,
    logits: Tensor | None,
    mu: Tensor | None,
    theta: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Mean and inverse dispersion from either parametrization."""
    if probs is None and logits is None and total_count is None:
        if mu is not None and theta is not None:
            return mu, theta
    elif mu is None and theta is None and total_count is not None:
        if probs is None and logits is not None:
            return total_count * logits.exp(), total_count
        if logits is None and probs is not None:
            return total_count * probs / (1 - probs), total_count
    parameters = {
        "total_count": total_count,
        "probs": probs,
        "logits": logits,
        "mu": mu,
        "theta": theta,
    }
    names = ", ".join(f"`{name}`" for name, tensor in parameters.items() if tensor is not None)
    raise InvalidOptionError(
        "Expected either `mu` and `theta`, or `total_count` and one of `probs` and `logits`; "
        f"got {names or 'none of them'}."
    )
