"""The mixture of two negative binomial distributions against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import special, stats
from torch import Tensor

from cellvae.distributions.mixture import NegativeBinomialMixture
from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.errors import InvalidOptionError

MU1 = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
MU2 = torch.tensor([8.0, 40.0], dtype=torch.float64)
THETA1 = torch.tensor([0.7, 4.0], dtype=torch.float64)
THETA2 = torch.tensor(10.0, dtype=torch.float64)
LOGITS = torch.tensor([[0.3, -2.0], [1.5, 0.0]], dtype=torch.float64)


@pytest.fixture
def counts() -> NegativeBinomialMixture:
    return NegativeBinomialMixture(MU1, MU2, THETA1, LOGITS, THETA2)


def support(n: int = 4000) -> Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None, None]


def test_log_prob_is_the_logsumexp_of_components_of_scipy(counts: NegativeBinomialMixture) -> None:
    x = support(100)
    first = stats.nbinom.logpmf(x, THETA1, THETA1 / (THETA1 + MU1))
    second = stats.nbinom.logpmf(x, THETA2, THETA2 / (THETA2 + MU2))
    logits = LOGITS.numpy()
    weighted = [first + special.log_expit(logits), second + special.log_expit(-logits)]
    expected = special.logsumexp(weighted, axis=0)
    torch.testing.assert_close(
        counts.log_prob(x), torch.from_numpy(expected), rtol=1e-10, atol=1e-12
    )


def test_probabilities_sum_to_one(counts: NegativeBinomialMixture) -> None:
    total = counts.log_prob(support()).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(LOGITS), rtol=0, atol=1e-12)


def test_mean_and_variance_are_sums_over_the_support(counts: NegativeBinomialMixture) -> None:
    x = support()
    probability = counts.log_prob(x).exp()
    mean = (x * probability).sum(0)
    variance = ((x - mean).square() * probability).sum(0)
    torch.testing.assert_close(counts.mean, mean)
    torch.testing.assert_close(counts.variance, variance)
    torch.testing.assert_close(counts.stddev, variance.sqrt())


def test_draws_choose_the_component_for_each_count(counts: NegativeBinomialMixture) -> None:
    torch.manual_seed(0)
    n = 40_000
    draws = counts.sample((n,))
    x = support()
    probability = counts.log_prob(x).exp()
    fourth = ((x - counts.mean) ** 4 * probability).sum(0)
    for observed, expected, variance in (
        (draws.mean(0), counts.mean, counts.variance),
        (draws.var(0), counts.variance, fourth - counts.variance**2),
    ):
        assert torch.all((observed - expected).abs() < 4.5 * (variance / n).sqrt())


@pytest.mark.parametrize(("logit", "component"), [(100.0, 1), (-100.0, 2)])
def test_extreme_logits_leave_one_component(logit: float, component: int) -> None:
    x = support(20)
    counts = NegativeBinomialMixture(MU1, MU2, THETA1, torch.full_like(LOGITS, logit), THETA2)
    mu, theta = ((MU1, THETA1), (MU2, THETA2))[component - 1]
    alone = NegativeBinomial(mu=mu, theta=theta)
    torch.testing.assert_close(counts.log_prob(x), alone.log_prob(x).expand(20, 2, 2))
    torch.testing.assert_close(counts.mean, alone.mean.expand(2, 2))
    torch.testing.assert_close(counts.variance, alone.variance.expand(2, 2))


def test_one_theta_serves_both_components() -> None:
    x = support(20)
    shared = NegativeBinomialMixture(mu1=MU1, mu2=MU2, theta1=THETA1, mixture_logits=LOGITS)
    both = NegativeBinomialMixture(MU1, MU2, THETA1, LOGITS, theta2=THETA1)
    assert torch.equal(shared.log_prob(x), both.log_prob(x))
    assert torch.equal(shared.theta2, THETA1.expand(2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_and_all_gradients_are_finite_at_every_corner(dtype: torch.dtype) -> None:
    corners = itertools.product(
        (0.0, 1.0, 1e6), (0.0, 1e-6, 1e6), (0.0, 1e6), (1e-6, 1.0, 1e8), (-100.0, 0.0, 100.0)
    )
    x, *columns = torch.tensor(list(corners), dtype=dtype).T
    leaves = [column.clone().requires_grad_() for column in columns]
    log_prob = NegativeBinomialMixture(*leaves).log_prob(x)
    log_prob.sum().backward()
    assert torch.all(log_prob.isfinite())
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.all(leaf.grad.isfinite())


def test_gradients_agree_with_finite_differences() -> None:
    x = torch.tensor([[0.0, 5.0], [2.0, 60.0]], dtype=torch.float64)
    given = (MU1, MU2, THETA1, LOGITS, THETA2)
    leaves = tuple(tensor.clone().requires_grad_() for tensor in given)
    assert torch.autograd.gradcheck(
        lambda *tensors: NegativeBinomialMixture(*tensors).log_prob(x), leaves
    )


def test_expanding_repeats_the_distribution(counts: NegativeBinomialMixture) -> None:
    wide = counts.expand((5, 2, 2))
    assert wide.batch_shape == wide.mean.shape == wide.mixture_probs.shape == (5, 2, 2)
    assert wide.sample((3,)).shape == (3, 5, 2, 2)
    assert torch.equal(wide.log_prob(torch.tensor(4.0))[4], counts.log_prob(torch.tensor(4.0)))


def test_a_mixture_has_a_mean_but_no_normalized_mean(counts: NegativeBinomialMixture) -> None:
    assert torch.equal(counts.get_normalized("mu"), counts.mean)
    with pytest.raises(InvalidOptionError, match="made without"):
        counts.get_normalized("scale")


def test_invalid_parameters_and_counts_are_refused_when_asked_to_check() -> None:
    with pytest.raises(ValueError, match="parameter theta2"):
        NegativeBinomialMixture(MU1, MU2, THETA1, LOGITS, -THETA2, validate_args=True)
    checked = NegativeBinomialMixture(MU1, MU2, THETA1, LOGITS, validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        checked.log_prob(torch.tensor(0.5))
