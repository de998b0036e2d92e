"""Zero-inflated negative binomial distribution of counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution, constraints

from cellvae.distributions.functional.log_prob import ZeroInflatedLogProb
from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.errors import InvalidOptionError


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Zero-inflated negative binomial distribution.

    A count is a structural zero with the probability :math:`\pi`; otherwise it has a negative
    binomial distribution with mean :math:`\mu` and inverse dispersion :math:`\theta`. The mean of
    the count is :math:`(1 - \pi) \mu`.

    Parameters
    ----------
    total_count
        Number of failures, a positive real number.
    probs
        Probability of success, below 1.
    logits
        Log-odds of success.
    mu
        Mean without zero inflation, in counts.
    theta
        Inverse dispersion.
    zi_logits
        Log-odds of a structural zero.
    scale
        Normalized mean; stored for users and not used in any computation.
    validate_args
        Whether to check parameters and counts; on a GPU this waits for the device.

    Raises
    ------
    InvalidOptionError
        If `zi_logits` is missing, or the other parameters belong to neither parametrization.

    Examples
    --------
    >>> import torch
    >>> one = torch.tensor(1.0)
    >>> counts = ZeroInflatedNegativeBinomial(mu=one, theta=one, zi_logits=torch.tensor(0.0))
    >>> counts.mean, counts.log_prob(torch.tensor(0.0)).exp()
    (tensor(0.5000), tensor(0.7500))
    """

    arg_constraints = {**NegativeBinomial.arg_constraints, "zi_logits": constraints.real}

    def __init__(
        self,
        total_count: Float[Tensor, "*#batch"] | None = None,
        probs: Float[Tensor, "*#batch"] | None = None,
        logits: Float[Tensor, "*#batch"] | None = None,
        mu: Float[Tensor, "*#batch"] | None = None,
        theta: Float[Tensor, "*#batch"] | None = None,
        zi_logits: Float[Tensor, "*#batch"] | None = None,
        scale: Float[Tensor, "*#batch"] | None = None,
        validate_args: bool | None = False,
    ) -> None:
        if zi_logits is None:
            raise InvalidOptionError(
                "Expected `zi_logits`, the log-odds of a structural zero; got None. "
                "Use `NegativeBinomial` for counts without zero inflation."
            )
        super().__init__(total_count, probs, logits, mu, theta, scale, validate_args=False)
        self.mu, self.theta, self.zi_logits = torch.broadcast_tensors(
            self.mu, self.theta, zi_logits
        )
        Distribution.__init__(self, self.mu.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: Sequence[int], _instance: Distribution | None = None
    ) -> ZeroInflatedNegativeBinomial:
        """Same distribution with its parameters broadcast to a larger shape."""
        new: ZeroInflatedNegativeBinomial = self._get_checked_instance(
            ZeroInflatedNegativeBinomial, _instance
        )
        new.zi_logits = self.zi_logits.expand(torch.Size(batch_shape))
        super().expand(batch_shape, new)
        return new

    @property
    def zi_probs(self) -> Float[Tensor, "*batch"]:
        """Probability of a structural zero."""
        return self.zi_logits.sigmoid()

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Mean with zero inflation, in counts."""
        return (-self.zi_logits).sigmoid() * self.mu

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Variance with zero inflation, in squared counts."""
        return self.mean * (1 + self.mu * (self.zi_probs + self.theta.reciprocal()))

    @property
    def mode(self) -> Float[Tensor, "*batch"]:
        """Most probable count: zero, or the mode without zero inflation."""
        mode = super().mode
        zero = torch.zeros_like(mode)
        return torch.where(self.log_prob(zero) >= self.log_prob(mode), zero, mode)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*draws"]:
        """Random counts; Poisson rates above 10^8 are replaced by 10^8."""
        counts = super().sample(sample_shape)
        not_structural = torch.bernoulli((-self.zi_logits).sigmoid().expand(counts.shape))
        return counts * not_structural

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*draws"]:
        """Log-probability of counts, in nats."""
        uninflated = super().log_prob(value)
        log_prob: Tensor = ZeroInflatedLogProb.apply(
            value.to(uninflated.dtype), uninflated, self.zi_logits.to(uninflated.dtype)
        )
        return log_prob
