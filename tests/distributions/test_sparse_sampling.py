"""Sparse draws against the probabilities of scipy, and against dense draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from cellvae.distributions import (
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from cellvae.distributions.sparse_sampling import sample_sparse

N = 100_000


def drawn(counts: object, shape: tuple[int, ...] = (N,)) -> np.ndarray:
    """All counts of one draw, with the zeros."""
    torch.manual_seed(0)
    sparse = sample_sparse(counts)
    dense = torch.zeros(shape).flatten()
    dense[sparse.indices] = sparse.values
    return dense.reshape(shape).double().numpy()


def assert_distributed(draws: np.ndarray, frozen: object) -> None:
    """Fractions of draws up to each of many values, within 4.5 standard errors."""
    values = np.unique(np.r_[np.arange(6), frozen.ppf([0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])])
    expected = frozen.cdf(values)
    shares = (draws[:, None] <= values).mean(axis=0)
    errors = np.sqrt(np.maximum(expected * (1 - expected), 1 / len(draws)) / len(draws))
    assert (np.abs(shares - expected) < 4.5 * errors).all()


@pytest.mark.parametrize(
    ("mu", "theta"),
    # Few clusters, many clusters, almost always zero with long tails, close to Poisson.
    [(0.01, 1.0), (0.3, 0.05), (3.0, 0.01), (5.0, 0.3), (30.0, 2.0), (50.0, 0.1), (2.0, 1e5)],
)
def test_counts_are_negative_binomial(mu: float, theta: float) -> None:
    draws = drawn(NegativeBinomial(mu=torch.full((N,), mu), theta=torch.tensor(theta)))
    assert_distributed(draws, stats.nbinom(theta, theta / (theta + mu)))


@pytest.mark.parametrize("rate", [0.02, 1.0, 4.0, 300.0])
def test_counts_are_poisson(rate: float) -> None:
    assert_distributed(drawn(Poisson(torch.full((N,), rate))), stats.poisson(rate))
    # An infinite inverse dispersion is the Poisson limit.
    limit = NegativeBinomial(mu=torch.full((N,), rate), theta=torch.tensor(torch.inf))
    assert_distributed(drawn(limit), stats.poisson(rate))


@pytest.mark.parametrize("mu", [0.4, 40.0])
def test_zero_inflation_adds_zeros(mu: float) -> None:
    theta, logit = 0.7, 0.5
    draws = drawn(
        ZeroInflatedNegativeBinomial(
            mu=torch.full((N,), mu), theta=torch.tensor(theta), zi_logits=torch.tensor(logit)
        )
    )
    replaced = 1 / (1 + np.exp(-logit))
    zero = replaced + (1 - replaced) * stats.nbinom.pmf(0, theta, theta / (theta + mu))
    assert abs((draws == 0).mean() - zero) < 4.5 * np.sqrt(zero * (1 - zero) / N)
    mean = (1 - replaced) * mu
    assert abs(draws.mean() - mean) < 4.5 * draws.std() / np.sqrt(N)


def test_each_count_has_its_own_parameters_and_place() -> None:
    mu = torch.tensor([[0.0, 1.0, 20.0], [300.0, 0.0, 0.1]])
    theta = torch.tensor([0.5, 2.0, 9.0])
    draws = drawn(NegativeBinomial(mu=mu.expand(20_000, 2, 3), theta=theta), (20_000, 2, 3))
    variance = mu + mu**2 / theta
    errors = (variance / 20_000).sqrt().numpy()
    assert (np.abs(draws.mean(axis=0) - mu.numpy()) <= 4.5 * errors).all()
    assert (draws[:, 0, 0] == 0).all()
    assert (draws[:, 1, 1] == 0).all()


def test_places_rise() -> None:
    sparse = sample_sparse(NegativeBinomial(mu=torch.rand(40, 7), theta=torch.rand(7)))
    assert (sparse.indices.diff() > 0).all()
    assert (sparse.values > 0).all()
    assert sparse.values.dtype == torch.float32
    assert torch.equal(sparse.values, sparse.values.round())


def test_values_that_are_no_counts_are_all_there() -> None:
    draws = drawn(Normal(torch.full((N,), -1.0), torch.tensor(2.0)))
    assert stats.kstest(draws, stats.norm(-1, 2).cdf).pvalue > 1e-4


def test_draws_follow_torchs_global_seed() -> None:
    counts = NegativeBinomial(mu=torch.rand(50, 20) * 9, theta=torch.rand(20))
    assert np.array_equal(drawn(counts, (50, 20)), drawn(counts, (50, 20)))
