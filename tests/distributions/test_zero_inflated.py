"""The zero-inflated negative binomial distribution against sums, limits, and draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.distributions.zero_inflated import ZeroInflatedNegativeBinomial
from cellvae.errors import InvalidOptionError

MU = torch.tensor([[0.01, 0.7], [3.0, 25.0], [9.0, 25.0]], dtype=torch.float64)
THETA = torch.tensor([0.4, 6.0], dtype=torch.float64)
LOGITS = torch.tensor([[-2.0], [0.5], [-5.0]], dtype=torch.float64)


@pytest.fixture
def counts() -> ZeroInflatedNegativeBinomial:
    return ZeroInflatedNegativeBinomial(mu=MU, theta=THETA, zi_logits=LOGITS)


def support(n: int = 4000) -> Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None, None]


def test_log_prob_is_the_mixture_of_zero_and_scipy(counts: ZeroInflatedNegativeBinomial) -> None:
    x = support(30)
    inflated = LOGITS.sigmoid()
    pmf = torch.from_numpy(stats.nbinom.pmf(x, THETA, THETA / (THETA + MU)))
    expected = torch.log(inflated * (x == 0) + (1 - inflated) * pmf)
    torch.testing.assert_close(counts.log_prob(x), expected, rtol=1e-10, atol=1e-12)


def test_probabilities_sum_to_one(counts: ZeroInflatedNegativeBinomial) -> None:
    total = counts.log_prob(support()).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(MU), rtol=0, atol=1e-12)


def test_mean_and_variance_include_the_zeros(counts: ZeroInflatedNegativeBinomial) -> None:
    x = support()
    probability = counts.log_prob(x).exp()
    mean = (x * probability).sum(0)
    variance = ((x - mean).square() * probability).sum(0)
    torch.testing.assert_close(counts.mean, mean)
    torch.testing.assert_close(counts.variance, variance)
    torch.testing.assert_close(counts.stddev, variance.sqrt())
    assert torch.equal(counts.zi_probs, LOGITS.sigmoid().expand(3, 2))


def test_mode_is_the_most_probable_count(counts: ZeroInflatedNegativeBinomial) -> None:
    mode = counts.mode.long()
    assert torch.equal(mode, counts.log_prob(support(100)).argmax(0))
    assert mode[1, 1] == 0
    assert mode[2, 1] > 0


def test_draws_have_the_mean_variance_and_zeros_of_the_distribution(
    counts: ZeroInflatedNegativeBinomial,
) -> None:
    torch.manual_seed(0)
    n = 40_000
    draws = counts.sample((n,))
    x = support()
    probability = counts.log_prob(x).exp()
    fourth = ((x - counts.mean) ** 4 * probability).sum(0)
    zero = probability[0]
    for observed, expected, variance in (
        (draws.mean(0), counts.mean, counts.variance),
        (draws.var(0), counts.variance, fourth - counts.variance**2),
        ((draws == 0).double().mean(0), zero, zero * (1 - zero)),
    ):
        assert torch.all((observed - expected).abs() < 4.5 * (variance / n).sqrt())


def test_very_negative_logits_leave_the_negative_binomial() -> None:
    x = support(50).float()
    mu, theta = MU.float(), THETA.float()
    plain = NegativeBinomial(mu=mu, theta=theta)
    inflated = ZeroInflatedNegativeBinomial(
        mu=mu, theta=theta, zi_logits=torch.full_like(mu, -100.0)
    )
    torch.testing.assert_close(inflated.log_prob(x), plain.log_prob(x), rtol=1e-6, atol=0)
    torch.testing.assert_close(inflated.mean, plain.mean)
    torch.testing.assert_close(inflated.variance, plain.variance)


def test_very_positive_logits_leave_nothing_but_zeros() -> None:
    one = torch.ones(3)
    inflated = ZeroInflatedNegativeBinomial(mu=one, theta=one, zi_logits=100 * one)
    x = torch.tensor([0.0, 1.0, 2.0])
    plain = NegativeBinomial(mu=one, theta=one).log_prob(x)
    expected = torch.where(x == 0, 0.0, plain - 100)
    torch.testing.assert_close(inflated.log_prob(x), expected, rtol=1e-6, atol=0)
    assert torch.equal(inflated.sample((100,)), torch.zeros(100, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_and_all_gradients_are_finite_at_every_corner(dtype: torch.dtype) -> None:
    corners = itertools.product(
        (0.0, 1.0, 30.0, 1e6),
        (0.0, 1e-30, 1e-6, 1.0, 1e6),
        (0.0, 1e-6, 1.0, 1e4, 1e8, float("inf")),
        (-100.0, 0.0, 100.0),
    )
    x, mu, theta, logits = torch.tensor(list(corners), dtype=dtype).T
    leaves = [column.clone().requires_grad_() for column in (mu, theta, logits)]
    inflated = ZeroInflatedNegativeBinomial(mu=leaves[0], theta=leaves[1], zi_logits=leaves[2])
    log_prob = inflated.log_prob(x)
    log_prob.sum().backward()
    assert torch.all(log_prob.isfinite())
    assert torch.all(log_prob <= 0)
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.all(leaf.grad.isfinite())


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.poisson(MU)

    def log_prob(mu: Tensor, theta: Tensor, logits: Tensor) -> Tensor:
        return ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=logits).log_prob(x)

    leaves = tuple(tensor.clone().requires_grad_() for tensor in (MU, THETA, LOGITS))
    assert torch.autograd.gradcheck(log_prob, leaves)


def test_total_count_with_logits_is_the_same_distribution() -> None:
    same = ZeroInflatedNegativeBinomial(
        total_count=THETA, logits=(MU / THETA).log(), zi_logits=LOGITS
    )
    expected = ZeroInflatedNegativeBinomial(mu=MU, theta=THETA, zi_logits=LOGITS)
    torch.testing.assert_close(same.log_prob(support(20)), expected.log_prob(support(20)))


def test_logits_may_be_wider_than_the_other_parameters() -> None:
    one = torch.tensor(1.0)
    counts = ZeroInflatedNegativeBinomial(mu=one, theta=one, zi_logits=torch.zeros(4, 2))
    assert counts.batch_shape == counts.mean.shape == counts.sample().shape == (4, 2)
    assert torch.equal(counts.log_prob(one), counts.log_prob(torch.ones(4, 2)))


def test_expanding_repeats_the_distribution(counts: ZeroInflatedNegativeBinomial) -> None:
    wide = counts.expand((7, 3, 2))
    assert type(wide) is ZeroInflatedNegativeBinomial
    assert wide.batch_shape == wide.zi_logits.shape == wide.variance.shape == (7, 3, 2)
    assert wide.sample((2,)).shape == (2, 7, 3, 2)
    assert torch.equal(wide.log_prob(torch.tensor(0.0))[6], counts.log_prob(torch.tensor(0.0)))


def test_mean_asked_for_by_name_is_that_without_zeros(
    counts: ZeroInflatedNegativeBinomial,
) -> None:
    assert torch.equal(counts.get_normalized("mu"), MU)


def test_zero_inflation_without_logits_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="Expected `zi_logits`.*Use `NegativeBinomial`"):
        ZeroInflatedNegativeBinomial(mu=MU, theta=THETA)


def test_invalid_parameters_and_counts_are_refused_when_asked_to_check() -> None:
    one, nothing = torch.tensor(1.0), torch.tensor(float("nan"))
    with pytest.raises(ValueError, match="parameter zi_logits"):
        ZeroInflatedNegativeBinomial(mu=one, theta=one, zi_logits=nothing, validate_args=True)
    with pytest.raises(ValueError, match="parameter theta"):
        ZeroInflatedNegativeBinomial(mu=one, theta=-one, zi_logits=one, validate_args=True)
    checked = ZeroInflatedNegativeBinomial(mu=one, theta=one, zi_logits=one, validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        checked.log_prob(torch.tensor(0.5))
