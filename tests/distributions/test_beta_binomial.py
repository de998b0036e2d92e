"""Beta-binomial against scipy, exact sums and its limits."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from cellvae.distributions import BetaBinomial
from cellvae.distributions.protocol import CountDistribution
from cellvae.errors import InvalidOptionError

SHAPES = [(0.3, 0.7), (2.0, 5.0), (40.0, 1.0), (99.5, 100.5), (1e3, 3e3)]


def doubles(*values: Any) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize(("alpha", "beta"), SHAPES)
@pytest.mark.parametrize("total", [0, 1, 7, 300])
def test_the_density_is_that_of_scipy(alpha: float, beta: float, total: int) -> None:
    counts = np.arange(total + 1)
    a, b, n = doubles(alpha, beta, total)
    expected = stats.betabinom(total, alpha, beta)
    found = BetaBinomial(n, a, b).log_prob(torch.from_numpy(counts))
    np.testing.assert_allclose(found, expected.logpmf(counts), rtol=1e-9, atol=1e-9)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-10)
    single = BetaBinomial(n.float(), a.float(), b.float())
    assert single.log_prob(torch.from_numpy(counts)).dtype == torch.float32
    np.testing.assert_allclose(
        single.log_prob(torch.from_numpy(counts)), expected.logpmf(counts), rtol=2e-5, atol=2e-5
    )
    assert float(single.mean) == pytest.approx(expected.mean(), rel=1e-6)
    assert float(single.variance) == pytest.approx(expected.var(), rel=1e-5)


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 50.0, 1e4, 1e9, 1e14])
@pytest.mark.parametrize("beta", [1e-6, 3.0, 1e7])
def test_density_and_gradient_are_exact_at_the_corners(alpha: float, beta: float) -> None:
    mpmath.mp.dps = 60
    for total, count in ((5, 0), (5, 2), (1000, 999), (100_000, 3)):
        a, b, n, k = map(mpmath.mpf, (alpha, beta, total, count))

        def density(a: Any, b: Any, n: Any = n, k: Any = k) -> Any:
            return (
                mpmath.log(mpmath.binomial(n, k))
                + mpmath.loggamma(a + k) + mpmath.loggamma(b + n - k) - mpmath.loggamma(a + b + n)
                - mpmath.loggamma(a) - mpmath.loggamma(b) + mpmath.loggamma(a + b)
            )  # fmt: skip

        first, second = (x.requires_grad_() for x in doubles(alpha, beta))
        found = BetaBinomial(torch.tensor(float(total)), first, second).log_prob(
            torch.tensor(count)
        )
        found.backward()
        assert found.item() == pytest.approx(float(density(a, b)), rel=1e-9, abs=1e-7)
        slope = mpmath.psi(0, a + k) - mpmath.psi(0, a + b + n) - mpmath.psi(0, a)
        slope += mpmath.psi(0, a + b)
        assert first.grad.item() * alpha == pytest.approx(float(slope * a), rel=1e-6, abs=1e-6)


def test_gradients_are_those_of_differences() -> None:
    alpha, beta = doubles([0.4, 3.0, 150.0], [2.0, 0.8, 90.0])
    count, total = doubles([0, 4, 9], [5, 4, 20])

    def density(alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return BetaBinomial(total, alpha, beta).log_prob(count)

    assert torch.autograd.gradcheck(density, (alpha.requires_grad_(), beta.requires_grad_()))
    mu, gamma = doubles([0.3, 0.9, 0.5], [0.1, 0.5, 0.01])

    def by_mean(mu: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        return BetaBinomial(total, mu=mu, gamma=gamma).log_prob(count)

    assert torch.autograd.gradcheck(by_mean, (mu.requires_grad_(), gamma.requires_grad_()))


def test_mean_and_dispersion_are_shapes_in_other_words() -> None:
    mu, gamma = doubles([0.2, 0.7], [0.05, 0.6])
    made = BetaBinomial(torch.tensor(12), mu=mu, gamma=gamma)
    np.testing.assert_allclose(made.alpha, mu * (1 - gamma) / gamma)
    np.testing.assert_allclose(made.beta, (1 - mu) * (1 - gamma) / gamma)
    np.testing.assert_allclose(made.mu, mu)
    np.testing.assert_allclose(made.gamma, gamma)
    # Correlation of two trials: the variance of a sum of 12 of them.
    single = mu * (1 - mu)
    np.testing.assert_allclose(made.variance, 12 * single + 12 * 11 * gamma * single)
    np.testing.assert_allclose(made.get_normalized("scale"), mu)
    np.testing.assert_allclose(made.get_normalized("mu"), 12 * mu)
    assert isinstance(made, CountDistribution)


def test_the_limits_are_binomial_and_all_or_none() -> None:
    total, mu, count = 9, torch.tensor(0.3), torch.arange(10)
    for gamma in (0.0, 1e-12):
        made = BetaBinomial(torch.tensor(total), mu=mu.double(), gamma=torch.tensor(gamma).double())
        expected = stats.binom(total, float(mu)).logpmf(count)
        np.testing.assert_allclose(made.log_prob(count), expected, rtol=1e-8)
    one = BetaBinomial(torch.tensor(total), mu=mu, gamma=torch.tensor(1.0))
    found = one.log_prob(count)
    assert torch.isfinite(found).all()
    assert found[1:-1].max() < -15


@pytest.mark.parametrize(("alpha", "beta"), [*SHAPES, (1e-6, 3e-6), (1e9, 3e9)])
def test_draws_have_its_mean_and_variance(alpha: float, beta: float) -> None:
    torch.manual_seed(0)
    made = BetaBinomial(torch.tensor(40.0), torch.tensor(alpha), torch.tensor(beta))
    drawn = made.sample((20_000,))
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0 and drawn.max() <= 40
    assert torch.equal(drawn, drawn.round())
    error = 5 * float(made.variance / len(drawn)) ** 0.5
    assert float(drawn.mean()) == pytest.approx(float(made.mean), abs=error)
    assert float(drawn.var()) == pytest.approx(float(made.variance), rel=0.08)


def test_shapes_broadcast_and_expand() -> None:
    total = torch.tensor([[3.0], [5.0]])
    made = BetaBinomial(total, torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.0))
    assert made.batch_shape == (2, 3)
    assert made.sample((4,)).shape == (4, 2, 3)
    wide = made.expand((7, 2, 3))
    assert wide.log_prob(torch.zeros(2, 3)).shape == (7, 2, 3)
    assert torch.equal(wide.mean[3], made.mean)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"alpha": 1.0},
        {"mu": 0.5, "beta": 1.0},
        {"mu": 0.5},
        {"alpha": 1.0, "beta": 1.0, "mu": 0.5, "gamma": 0.5},
    ],
)
def test_parameters_of_neither_way_are_refused(kwargs: dict[str, float]) -> None:
    tensors = {name: torch.tensor(value) for name, value in kwargs.items()}
    with pytest.raises(InvalidOptionError, match="either `alpha` and `beta`, or `mu` and `gamma`"):
        BetaBinomial(torch.tensor(3), **tensors)


def test_values_are_checked_where_that_is_asked_for() -> None:
    one, half = torch.tensor(1.0), torch.tensor(0.5)
    made = BetaBinomial(torch.tensor(3.0), one, one, validate_args=True)
    with pytest.raises(ValueError, match="support"):
        made.log_prob(torch.tensor(4.0))
    with pytest.raises(ValueError, match="alpha"):
        BetaBinomial(torch.tensor(3.0), -one, one, validate_args=True)
    for kwargs in ({"mu": one, "gamma": half}, {"mu": half, "gamma": one}):
        with pytest.raises(InvalidOptionError, match="between 0 and 1"):
            BetaBinomial(torch.tensor(3.0), **kwargs, validate_args=True)
