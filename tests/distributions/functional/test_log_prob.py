"""Log-densities and their gradients at corners where naive formulas fail."""

from __future__ import annotations

import itertools

import mpmath
import pytest
import torch
from torch import Tensor

from cellvae.distributions.functional.log_prob import (
    NegativeBinomialLogProb,
    PoissonLogProb,
    ZeroInflatedLogProb,
)

COUNTS = (0, 1, 2, 7, 40, 1000, 10**6)
MEANS = (1e-12, 1e-6, 0.5, 1.0, 30.0, 999.0, 1e6)
DISPERSIONS = (1e-6, 1e-2, 1.0, 7.0, 100.0, 1e4, 1e6, 1e8)
LOGITS = (-100.0, -3.0, 0.0, 3.0, 100.0)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def grid(dtype: torch.dtype, *axes: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Every combination of some numbers as leaves, one column for each axis."""
    rows = torch.tensor(list(itertools.product(*axes)), dtype=torch.float64).to(dtype)
    return tuple(column.clone().requires_grad_() for column in rows.T)


def rounded(values: list[mpmath.mpf]) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def exact_negative_binomial(x: float, mu: float, theta: float) -> mpmath.mpf:
    y, m, t = mpmath.mpf(x), mpmath.mpf(mu), mpmath.mpf(theta)
    gammas = mpmath.loggamma(y + t) - mpmath.loggamma(t) - mpmath.loggamma(y + 1)
    return gammas + t * mpmath.log(t / (t + m)) + (y * mpmath.log(m / (t + m)) if x else 0)


def exact_slopes(x: float, mu: float, theta: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Derivatives with respect to the logarithms of the mean and the inverse dispersion."""
    y, m, t = mpmath.mpf(x), mpmath.mpf(mu), mpmath.mpf(theta)
    by_theta = mpmath.digamma(y + t) - mpmath.digamma(t) + mpmath.log(t / (t + m))
    return t * (y - m) / (m + t), t * (by_theta + (m - y) / (m + t))


def rows_of(*columns: Tensor) -> list[list[float]]:
    return torch.stack([column.detach().double() for column in columns], 1).tolist()


@each_dtype
def test_negative_binomial_is_exact_from_dispersion_1e_6_to_1e8(dtype: torch.dtype) -> None:
    x, mu, theta = grid(dtype, COUNTS, MEANS, DISPERSIONS)
    computed = NegativeBinomialLogProb.apply(x.detach(), mu, theta).double()
    with mpmath.workdps(40):
        expected = rounded([exact_negative_binomial(*row) for row in rows_of(x, mu, theta)])
    torch.testing.assert_close(computed, expected, rtol=TOLERANCE[dtype], atol=0)


@each_dtype
def test_negative_binomial_gradient_is_exact_at_the_same_corners(dtype: torch.dtype) -> None:
    x, mu, theta = grid(dtype, COUNTS, MEANS, DISPERSIONS)
    NegativeBinomialLogProb.apply(x.detach(), mu, theta).sum().backward()
    with mpmath.workdps(40):
        slopes = [exact_slopes(*row) for row in rows_of(x, mu, theta)]
    bound = TOLERANCE[dtype]
    by_mu, by_theta = (rounded(list(column)) for column in zip(*slopes, strict=True))
    torch.testing.assert_close((mu.grad * mu).double(), by_mu, rtol=bound, atol=0)
    # Close to the Poisson limit the slope is what is left of terms as large as the distance
    # from the mean; elsewhere of terms as large as theta.
    parts = torch.minimum((x - mu).abs(), theta).detach().double()
    torch.testing.assert_close(
        (theta.grad * theta).double() / (1 + parts), by_theta / (1 + parts), rtol=bound, atol=bound
    )


@each_dtype
def test_zero_counts_keep_their_relative_precision(dtype: torch.dtype) -> None:
    x, mu, theta = grid(dtype, (0.0,), (1e-15, 1e-9, 1e-3, 5.0, 1e6), DISPERSIONS)
    computed = NegativeBinomialLogProb.apply(x, mu, theta).double()
    expected = -theta.double() * torch.log1p(mu.double() / theta.double())
    torch.testing.assert_close(computed, expected, rtol=TOLERANCE[dtype], atol=0)


@each_dtype
def test_a_mean_of_zero_forbids_all_but_zero_and_stays_finite(dtype: torch.dtype) -> None:
    x, mu, theta = grid(dtype, COUNTS, (0.0,), DISPERSIONS)
    log_prob = NegativeBinomialLogProb.apply(x.detach(), mu, theta)
    rate = torch.zeros_like(x).requires_grad_()
    poisson = PoissonLogProb.apply(x.detach(), rate)
    (log_prob + poisson).sum().backward()
    for density in (log_prob, poisson):
        assert torch.all(density[x == 0] == 0)
        assert torch.all(density[x > 0] < -25)
        assert torch.all(density.isfinite())
    for gradient in (mu.grad, theta.grad, rate.grad):
        assert gradient is not None
        assert torch.all(gradient.isfinite())
    assert mu.grad is not None
    torch.testing.assert_close(mu.grad[x == 0], -torch.ones_like(mu.grad[x == 0]))


@each_dtype
def test_dispersion_of_zero_or_infinity_stays_finite(dtype: torch.dtype) -> None:
    x, mu, theta = grid(dtype, COUNTS, (0.0, 1e-9, 3.0, 1e6), (0.0, 1e-30, 1e30, float("inf")))
    log_prob = NegativeBinomialLogProb.apply(x.detach(), mu, theta)
    log_prob.sum().backward()
    assert torch.all(log_prob.isfinite())
    for gradient in (mu.grad, theta.grad):
        assert gradient is not None
        assert torch.all(gradient.isfinite())
    poisson = PoissonLogProb.apply(x.detach(), mu)
    huge = theta > 1
    torch.testing.assert_close(log_prob[huge], poisson[huge], rtol=1e-6, atol=0)


@each_dtype
def test_poisson_keeps_its_digits_at_a_million_counts(dtype: torch.dtype) -> None:
    x, rate = grid(dtype, (*COUNTS, 1001000), (*MEANS, 1001000.0))
    computed = PoissonLogProb.apply(x.detach(), rate)
    computed.sum().backward()
    with mpmath.workdps(40):
        exact = [
            y * mpmath.log(m) - m - mpmath.loggamma(y + 1)
            for y, m in (map(mpmath.mpf, row) for row in rows_of(x, rate))
        ]
    bound = TOLERANCE[dtype]
    # The distance from the mean is rounded before the small deviance is taken from it.
    slack = bound * (x - rate).abs().double()
    error = (computed.double() - rounded(exact)).abs()
    assert torch.all(error <= bound * rounded(exact).abs() + slack)
    assert rate.grad is not None
    torch.testing.assert_close(rate.grad, x.detach() / rate - 1, rtol=bound, atol=bound)


@each_dtype
def test_zero_inflation_is_exact_with_logits_from_minus_to_plus_100(dtype: torch.dtype) -> None:
    x, log_prob, logits = grid(dtype, (0.0, 3.0), (-1e8, -150.0, -5.0, -1e-3, 0.0), LOGITS)
    computed = ZeroInflatedLogProb.apply(x.detach(), log_prob, logits)
    computed.sum().backward()
    values, by_log_prob, by_logits = [], [], []
    with mpmath.workdps(60):
        for y, p, logit in rows_of(x, log_prob, logits):
            probability = mpmath.exp(p)
            inflated = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
            if y > 0:
                values.append(p + mpmath.log(1 - inflated))
                by_log_prob.append(mpmath.mpf(1))
                by_logits.append(-inflated)
            else:
                total = inflated + (1 - inflated) * probability
                values.append(mpmath.log(total))
                by_log_prob.append((1 - inflated) * probability / total)
                by_logits.append(inflated / total - inflated)
    bound = TOLERANCE[dtype]
    torch.testing.assert_close(computed.double(), rounded(values), rtol=bound, atol=bound)
    assert log_prob.grad is not None
    assert logits.grad is not None
    torch.testing.assert_close(log_prob.grad.double(), rounded(by_log_prob), rtol=0, atol=bound)
    torch.testing.assert_close(logits.grad.double(), rounded(by_logits), rtol=0, atol=bound)


def test_gradients_agree_with_finite_differences_through_broadcasting() -> None:
    torch.manual_seed(1)
    x = torch.poisson(3 * torch.rand(4, 3, dtype=torch.float64))
    mu = (3 * torch.rand(2, 4, 3, dtype=torch.float64)).requires_grad_()
    theta = torch.tensor([0.1, 1.0, 50.0], dtype=torch.float64, requires_grad=True)
    logits = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)

    def density(mu: Tensor, theta: Tensor, logits: Tensor) -> Tensor:
        return ZeroInflatedLogProb.apply(x, NegativeBinomialLogProb.apply(x, mu, theta), logits)

    assert density(mu, theta, logits).shape == (2, 4, 3)
    assert torch.autograd.gradcheck(density, (mu, theta, logits))
    assert torch.autograd.gradcheck(lambda rate: PoissonLogProb.apply(x, rate), (mu,))


def test_counts_may_be_narrower_than_the_parameters() -> None:
    x = torch.tensor([0.0, 4.0])
    mu = torch.rand(3, 2).requires_grad_()
    theta = torch.rand(3, 1).requires_grad_()
    narrow = NegativeBinomialLogProb.apply(x, mu, theta)
    assert torch.equal(narrow, NegativeBinomialLogProb.apply(x.expand(3, 2), mu, theta))
    narrow.sum().backward()
    assert mu.grad is not None
    assert theta.grad is not None
    assert (mu.grad.shape, theta.grad.shape) == ((3, 2), (3, 1))
    assert PoissonLogProb.apply(x, mu).shape == (3, 2)


def test_a_missing_value_is_not_hidden() -> None:
    one, nothing = torch.tensor(1.0), torch.tensor(float("nan"))
    assert NegativeBinomialLogProb.apply(nothing, one, one).isnan()
    assert NegativeBinomialLogProb.apply(one, nothing, one).isnan()
    assert NegativeBinomialLogProb.apply(one, one, nothing).isnan()
    assert ZeroInflatedLogProb.apply(torch.tensor(0.0), one, nothing).isnan()
