"""Mixture of two negative binomial distributions, for background and foreground counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid

from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.distributions.protocol import pick_mean
from cellvae.kernels import mixture_log_prob, use_compiled


class NegativeBinomialMixture(Distribution):
    r"""Mixture of two negative binomial distributions.

    Parameters
    ----------
    mu1
        Mean of the first component, in counts.
    mu2
        Mean of the second component, in counts.
    theta1
        Inverse dispersion of the first component.
    mixture_logits
        Log-odds of a count belonging to the first component.
    theta2
        Inverse dispersion of the second component; that of the first by default.
    validate_args
        Whether to check parameters and counts; on a GPU this waits for the device.

    Examples
    --------
    >>> import torch
    >>> one, ten, even = torch.tensor(1.0), torch.tensor(10.0), torch.tensor(0.0)
    >>> NegativeBinomialMixture(mu1=one, mu2=ten, theta1=one, mixture_logits=even).mean
    tensor(5.5000)
    """

    arg_constraints = {
        "mu1": constraints.nonnegative,
        "mu2": constraints.nonnegative,
        "theta1": constraints.positive,
        "theta2": constraints.positive,
        "mixture_logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        mu1: Float[Tensor, "*#batch"],
        mu2: Float[Tensor, "*#batch"],
        theta1: Float[Tensor, "*#batch"],
        mixture_logits: Float[Tensor, "*#batch"],
        theta2: Float[Tensor, "*#batch"] | None = None,
        validate_args: bool | None = False,
    ) -> None:
        first = NegativeBinomial(mu=mu1, theta=theta1)
        second = NegativeBinomial(mu=mu2, theta=theta1 if theta2 is None else theta2)
        shape = torch.broadcast_tensors(first.mu, second.mu, mixture_logits)[0].shape
        self._set(first.expand(shape), second.expand(shape), mixture_logits.expand(shape))
        super().__init__(shape, validate_args=validate_args)

    def _set(self, first: NegativeBinomial, second: NegativeBinomial, logits: Tensor) -> None:
        self._first, self._second, self.mixture_logits = first, second, logits
        self.mu1, self.theta1 = first.mu, first.theta
        self.mu2, self.theta2 = second.mu, second.theta

    def expand(
        self, batch_shape: Sequence[int], _instance: Distribution | None = None
    ) -> NegativeBinomialMixture:
        """Same distribution with its parameters broadcast to a larger shape."""
        shape = torch.Size(batch_shape)
        new: NegativeBinomialMixture = self._get_checked_instance(
            NegativeBinomialMixture, _instance
        )
        new._set(
            self._first.expand(shape), self._second.expand(shape), self.mixture_logits.expand(shape)
        )
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mixture_probs(self) -> Float[Tensor, "*batch"]:
        """Probability of a count belonging to the first component."""
        return self.mixture_logits.sigmoid()

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Mean, in counts."""
        return torch.lerp(self.mu2, self.mu1, self.mixture_probs)

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Variance within and between the components, in squared counts."""
        first = self.mixture_probs
        within = torch.lerp(self._second.variance, self._first.variance, first)
        return within + first * (1 - first) * (self.mu1 - self.mu2).square()

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean of the counts for "mu"; a mixture has no normalized mean."""
        return pick_mean(key, self.mean, None)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*draws"]:
        """Random counts; Poisson rates above 10^8 are replaced by 10^8."""
        counts = self._second.sample(sample_shape)
        is_first = torch.bernoulli(self.mixture_probs.expand(counts.shape)).bool()
        return torch.where(is_first, self._first.sample(sample_shape), counts)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*draws"]:
        """Log-probability of counts, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        parameters = (self.mu1, self.mu2, self.theta1, self.theta2, self.mixture_logits)
        is_float32 = all(tensor.dtype == torch.float32 for tensor in parameters)
        if (
            is_float32
            and value.shape == self.batch_shape
            and use_compiled(value, "mixture_log_prob")
        ):
            return mixture_log_prob(value, *parameters)
        return torch.logaddexp(
            self._first.log_prob(value) + logsigmoid(self.mixture_logits),
            self._second.log_prob(value) + logsigmoid(-self.mixture_logits),
        )
