"""Beta-binomial distribution of the number of successes in a known number of trials."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Binomial, Distribution, Gamma, constraints

from cellvae.distributions.functional.log_prob import MAX_INVERSE_DISPERSION
from cellvae.distributions.protocol import pick_mean
from cellvae.errors import InvalidOptionError

STIRLING_FROM = 100.0
"""Argument of the gamma function from which three terms of Stirling's series are exact."""


class BetaBinomial(Distribution):
    r"""Beta-binomial distribution: successes in `total_count` trials with a random probability.

    The probability of success has a beta distribution with shape parameters :math:`\alpha` and
    :math:`\beta`. The distribution is parametrized by these, or by the mean
    :math:`\mu = \alpha / (\alpha + \beta)` and the dispersion
    :math:`\gamma = 1 / (\alpha + \beta + 1)`, which is the correlation of two trials: close to 0
    the distribution is binomial, close to 1 all trials have the same outcome.

    Parameters may have any shapes that broadcast.

    Parameters
    ----------
    total_count
        Number of trials, an integer.
    alpha, beta
        Shape parameters of the beta distribution, positive.
    mu
        Mean probability of success, between 0 and 1.
    gamma
        Dispersion, between 0 and 1.
    validate_args
        Whether to check parameters and counts; on a GPU this waits for the device.
    eps
        Smallest shape parameter that `mu` and `gamma` are converted to.

    Raises
    ------
    InvalidOptionError
        If the parameters belong to neither parametrization, or to both.

    Examples
    --------
    >>> import torch
    >>> methylated = BetaBinomial(torch.tensor(10.0), mu=torch.tensor(0.3), gamma=torch.tensor(0.1))
    >>> methylated.mean, methylated.variance
    (tensor(3.), tensor(3.9900))
    """

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "alpha": constraints.positive,
        "beta": constraints.positive,
    }

    def __init__(
        self,
        total_count: Num[Tensor, "*#batch"],
        alpha: Float[Tensor, "*#batch"] | None = None,
        beta: Float[Tensor, "*#batch"] | None = None,
        mu: Float[Tensor, "*#batch"] | None = None,
        gamma: Float[Tensor, "*#batch"] | None = None,
        validate_args: bool | None = False,
        eps: float = 1e-8,
    ) -> None:
        if validate_args:
            check_open_interval("mu", mu)
            check_open_interval("gamma", gamma)
        alpha, beta = shape_parameters(alpha, beta, mu, gamma, eps)
        total_count = torch.as_tensor(total_count, dtype=alpha.dtype, device=alpha.device)
        self.total_count, self.alpha, self.beta = torch.broadcast_tensors(total_count, alpha, beta)
        super().__init__(self.alpha.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: Sequence[int], _instance: Distribution | None = None
    ) -> BetaBinomial:
        """Same distribution with its parameters broadcast to a larger shape."""
        shape = torch.Size(batch_shape)
        new: BetaBinomial = self._get_checked_instance(BetaBinomial, _instance)
        new.total_count = self.total_count.expand(shape)
        new.alpha, new.beta = self.alpha.expand(shape), self.beta.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """Integers from 0 to the number of trials."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mu(self) -> Float[Tensor, "*batch"]:
        """Mean probability of success."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def gamma(self) -> Float[Tensor, "*batch"]:
        """Correlation of two trials."""
        return (self.alpha + self.beta + 1).reciprocal()

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Mean, in counts."""
        return self.total_count * self.mu

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Variance, in squared counts."""
        one_trial = self.mu * (1 - self.mu)
        return self.total_count * one_trial * (1 + (self.total_count - 1) * self.gamma)

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean of the counts for "mu", mean probability of success for "scale"."""
        return pick_mean(key, self.mean, self.mu)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*draws"]:
        """Random counts."""
        shape = self._extended_shape(torch.Size(sample_shape))
        first, second = (
            sample_log_gamma(x.double().expand(shape)) for x in (self.alpha, self.beta)
        )
        total = self.total_count.double().expand(shape)
        counts = Binomial(total, probs=(first - second).sigmoid(), validate_args=False).sample()
        return counts.to(self.alpha.dtype)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*draws"]:
        """Log-probability of counts, in nats; computed in double precision."""
        if self._validate_args:
            self._validate_sample(value)
        successes, total = value.double(), self.total_count.double()
        alpha, beta = self.alpha.double(), self.beta.double()
        failures = total - successes
        log_choose = (
            torch.lgamma(total + 1) - torch.lgamma(successes + 1) - torch.lgamma(failures + 1)
        )
        log_prob = log_rising_factorial(alpha, successes) + log_rising_factorial(beta, failures)
        log_prob = log_choose + log_prob - log_rising_factorial(alpha + beta, total)
        return log_prob.to(torch.promote_types(self.alpha.dtype, torch.float32))


def shape_parameters(
    alpha: Tensor | None, beta: Tensor | None, mu: Tensor | None, gamma: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Shape parameters of the beta distribution from either parametrization."""
    if alpha is not None and beta is not None and mu is None and gamma is None:
        return alpha, beta
    if mu is not None and gamma is not None and alpha is None and beta is None:
        total = ((1 - gamma) / gamma).clamp(max=MAX_INVERSE_DISPERSION)
        return (mu * total).clamp(min=eps), ((1 - mu) * total).clamp(min=eps)
    parameters = {"alpha": alpha, "beta": beta, "mu": mu, "gamma": gamma}
    names = ", ".join(f"`{name}`" for name, tensor in parameters.items() if tensor is not None)
    raise InvalidOptionError(
        f"Expected either `alpha` and `beta`, or `mu` and `gamma`; got {names or 'none of them'}."
    )


def check_open_interval(name: str, values: Tensor | None) -> None:
    """Raise an error if a value is not between 0 and 1."""
    if values is not None and not bool(((values > 0) & (values < 1)).all()):
        raise InvalidOptionError(f"Expected {name} between 0 and 1; got {values}.")


def log_rising_factorial(
    start: Float[Tensor, "*#x"], steps: Float[Tensor, "*#x"]
) -> Float[Tensor, "*x"]:
    """Logarithm of the rising factorial start (start + 1) ... (start + steps - 1).

    If `start` is large, Stirling's series of the two gamma functions are subtracted term by term,
    so that no large numbers cancel.
    """
    small, large = start.clamp(max=STIRLING_FROM), start.clamp(min=STIRLING_FROM)
    from_lgamma = torch.lgamma(small + steps) - torch.lgamma(small)
    end = large + steps
    from_series = (large - 0.5) * torch.log1p(steps / large) + steps * end.log() - steps
    from_series = from_series + stirling_terms(end) - stirling_terms(large)
    return torch.where(start < STIRLING_FROM, from_lgamma, from_series)


def stirling_terms(z: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
    """Three terms of Stirling's series (DLMF 5.11.1)."""
    inverse = z.reciprocal()
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def sample_log_gamma(shape: Float[Tensor, "*x"]) -> Float[Tensor, "*x"]:
    """Logarithms of gamma random numbers, which themselves may underflow.

    A gamma(a) random number is a gamma(a + 1) one times u^(1/a) (Marsaglia and Tsang 2000).
    """
    draws = Gamma(shape + 1, torch.ones_like(shape), validate_args=False).sample()
    return draws.log() + torch.rand_like(shape).clamp(min=1e-300).log() / shape
