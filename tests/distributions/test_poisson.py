"""The Poisson distribution against scipy and torch."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from cellvae.distributions.poisson import Poisson
from cellvae.errors import InvalidOptionError

RATE = torch.tensor([0.0, 0.01, 0.7, 25.0], dtype=torch.float64)


def test_log_prob_is_that_of_scipy() -> None:
    x = torch.arange(60, dtype=torch.float64)[:, None]
    expected = torch.from_numpy(stats.poisson.logpmf(x, RATE[1:]))
    torch.testing.assert_close(Poisson(RATE[1:]).log_prob(x), expected, rtol=1e-11, atol=1e-13)


def test_probabilities_sum_to_one() -> None:
    x = torch.arange(200, dtype=torch.float64)[:, None]
    total = Poisson(RATE).log_prob(x).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(RATE), rtol=0, atol=1e-13)


def test_single_precision_holds_at_a_million_counts() -> None:
    x = torch.tensor([1e6, 1e6 + 1000, 1e6 - 3000])
    computed = Poisson(torch.tensor(1e6)).log_prob(x).double()
    expected = torch.from_numpy(stats.poisson.logpmf(x.double(), 1e6))
    torch.testing.assert_close(computed, expected, rtol=0, atol=5e-4)


def test_gradient_agrees_with_finite_differences() -> None:
    x = torch.tensor([0.0, 3.0, 30.0], dtype=torch.float64)[:, None]
    rate = RATE[1:].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rate: Poisson(rate).log_prob(x), (rate,))


def test_draws_have_the_mean_and_variance_of_the_distribution() -> None:
    torch.manual_seed(0)
    n, counts = 40_000, Poisson(RATE)
    draws = counts.sample((n,))
    assert torch.all((draws.mean(0) - counts.mean).abs() <= 4.5 * (RATE / n).sqrt())
    spread = 4.5 * ((RATE + 2 * RATE**2) / n).sqrt()
    assert torch.all((draws.var(0) - counts.variance).abs() <= spread)


def test_expanding_keeps_rate_and_scale() -> None:
    wide = Poisson(RATE, scale=RATE / 10).expand((3, 4))
    assert wide.batch_shape == (3, 4)
    assert wide.scale is not None
    assert wide.scale.shape == wide.sample().shape == (3, 4)
    assert torch.equal(wide.log_prob(RATE.round())[2], Poisson(RATE).log_prob(RATE.round()))
    assert Poisson(RATE).expand((2, 4)).scale is None


def test_normalized_means_are_asked_for_by_name() -> None:
    counts = Poisson(RATE, scale=RATE / 10)
    assert torch.equal(counts.get_normalized("mu"), RATE)
    assert torch.equal(counts.get_normalized("scale"), RATE / 10)
    with pytest.raises(InvalidOptionError, match="made without"):
        Poisson(RATE).get_normalized("scale")


def test_invalid_rates_and_counts_are_refused_when_asked_to_check() -> None:
    with pytest.raises(ValueError, match="parameter rate"):
        Poisson(-RATE, validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        Poisson(RATE, validate_args=True).log_prob(torch.tensor(-1.0))
