"""The negative binomial distribution against scipy, sums over its support, and draws."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy import stats
from torch import Tensor

from cellvae.distributions.negative_binomial import NegativeBinomial
from cellvae.errors import InvalidOptionError

MU = torch.tensor([[0.01, 0.7], [3.0, 25.0], [0.7, 25.0]], dtype=torch.float64)
THETA = torch.tensor([0.4, 6.0], dtype=torch.float64)


@pytest.fixture
def counts() -> NegativeBinomial:
    return NegativeBinomial(mu=MU, theta=THETA)


def support(n: int = 4000) -> Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None, None]


def test_log_prob_is_that_of_scipy(counts: NegativeBinomial) -> None:
    x = torch.cat([support(30), torch.full((1, 1, 1), 500.0, dtype=torch.float64)])
    expected = stats.nbinom.logpmf(x, THETA, THETA / (THETA + MU))
    torch.testing.assert_close(
        counts.log_prob(x), torch.from_numpy(expected), rtol=1e-10, atol=1e-12
    )


def test_log_prob_is_the_formula_with_a_small_number_inside_its_logarithms() -> None:
    torch.manual_seed(0)
    mu, theta = 10 * torch.rand(50, 30), 0.2 + 5 * torch.rand(30)
    x, eps = torch.poisson(mu), 1e-8
    log_sum = torch.log(theta + mu + eps)
    formula = theta * (torch.log(theta + eps) - log_sum) + x * (torch.log(mu + eps) - log_sum)
    formula += torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    computed = NegativeBinomial(mu=mu, theta=theta).log_prob(x)
    torch.testing.assert_close(computed, formula, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("theta", [1e4, 1e6, 1e8])
def test_single_precision_agrees_with_double_at_large_theta(theta: float) -> None:
    x = torch.tensor([0.0, 1.0, 5.0, 80.0, 1e4])[:, None]
    mu, single = torch.tensor([1e-3, 2.0, 60.0, 9e3]), torch.tensor(theta)
    double = NegativeBinomial(mu=mu.double(), theta=single.double()).log_prob(x.double())
    torch.testing.assert_close(
        NegativeBinomial(mu=mu, theta=single).log_prob(x).double(), double, rtol=1e-5, atol=0
    )
    poisson = torch.distributions.Poisson(mu.double()).log_prob(x.double())
    torch.testing.assert_close(double, poisson, rtol=2 * 1e4 / theta, atol=1e8 / theta)


def test_probabilities_sum_to_one(counts: NegativeBinomial) -> None:
    total = counts.log_prob(support()).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(MU), rtol=0, atol=1e-12)


def test_mean_and_variance_are_sums_over_the_support(counts: NegativeBinomial) -> None:
    x = support()
    probability = counts.log_prob(x).exp()
    mean = (x * probability).sum(0)
    variance = ((x - mean).square() * probability).sum(0)
    torch.testing.assert_close(counts.mean, mean)
    torch.testing.assert_close(counts.variance, variance)
    torch.testing.assert_close(counts.stddev, variance.sqrt())


def test_mode_is_the_most_probable_count(counts: NegativeBinomial) -> None:
    assert torch.equal(counts.mode.long(), counts.log_prob(support(100)).argmax(0))


def test_draws_have_the_mean_variance_and_zeros_of_the_distribution(
    counts: NegativeBinomial,
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
    assert torch.all(counts.support.check(draws))


def test_draws_are_finite_at_every_corner() -> None:
    torch.manual_seed(0)
    mu = torch.tensor([0.0, 1e-9, 5.0, 1e6, 1e12])[:, None].requires_grad_()
    theta = torch.tensor([0.0, 1e-6, 1.0, 1e8, float("inf")])
    draws = NegativeBinomial(mu=mu, theta=theta).sample((20,))
    assert draws.shape == (20, 5, 5)
    assert not draws.requires_grad
    assert torch.all(draws.isfinite())
    assert torch.all(draws[:, 0] == 0)
    # Poisson limit: a million plus or minus a thousand.
    assert torch.all((draws[:, 3, 3:] - 1e6).abs() < 6e3)


def test_total_count_with_logits_or_probs_is_the_same_distribution() -> None:
    x = support(20)
    expected = NegativeBinomial(mu=MU, theta=THETA).log_prob(x)
    by_logits = NegativeBinomial(total_count=THETA, logits=(MU / THETA).log())
    by_probs = NegativeBinomial(total_count=THETA, probs=MU / (MU + THETA))
    peer = torch.distributions.NegativeBinomial(THETA, probs=MU / (MU + THETA))
    for same in (by_logits, by_probs):
        torch.testing.assert_close(same.mean, MU)
        torch.testing.assert_close(same.log_prob(x), expected)
    torch.testing.assert_close(peer.log_prob(x), expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "got none of them"),
        (("mu",), "got `mu`"),
        (("total_count",), "got `total_count`"),
        (("probs", "logits", "total_count"), "got `total_count`, `probs`, `logits`"),
        (("mu", "theta", "logits"), "got `logits`, `mu`, `theta`"),
        (("mu", "theta", "total_count"), "got `total_count`, `mu`, `theta`"),
    ],
)
def test_any_other_set_of_parameters_is_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=f"Expected either `mu`.*{message}"):
        NegativeBinomial(**dict.fromkeys(names, torch.tensor(0.5)))


def test_theta_per_gene_is_broadcast_and_gets_its_gradient() -> None:
    torch.manual_seed(0)
    mu, theta = torch.rand(5, 3), torch.rand(3, requires_grad=True)
    x = torch.poisson(mu)
    narrow = NegativeBinomial(mu=mu, theta=theta)
    assert (narrow.batch_shape, narrow.event_shape) == ((5, 3), ())
    assert narrow.theta.shape == narrow.mean.shape == narrow.variance.shape == (5, 3)
    (gradient,) = torch.autograd.grad(narrow.log_prob(x).sum(), theta)
    wide = theta.detach().repeat(5, 1).requires_grad_()
    (each,) = torch.autograd.grad(NegativeBinomial(mu=mu, theta=wide).log_prob(x).sum(), wide)
    torch.testing.assert_close(gradient, each.sum(0))


def test_expanding_repeats_the_distribution() -> None:
    counts = NegativeBinomial(mu=MU, theta=THETA, scale=MU / 100)
    wide = counts.expand((7, 3, 2))
    assert wide.batch_shape == (7, 3, 2)
    assert wide.scale is not None
    assert wide.scale.shape == wide.theta.shape == wide.sample().shape == (7, 3, 2)
    assert wide.sample((2, 4)).shape == (2, 4, 7, 3, 2)
    assert torch.equal(wide.log_prob(torch.tensor(3.0))[6], counts.log_prob(torch.tensor(3.0)))


def test_counts_may_be_integers() -> None:
    counts = NegativeBinomial(mu=torch.tensor(3.0), theta=torch.tensor(2.0))
    log_prob = counts.log_prob(torch.tensor([0, 5]))
    assert log_prob.dtype == torch.float32
    assert torch.equal(log_prob, counts.log_prob(torch.tensor([0.0, 5.0])))


def test_half_precision_parameters_are_computed_with_in_single() -> None:
    mu = torch.tensor([0.5, 3.0], dtype=torch.bfloat16, requires_grad=True)
    counts = NegativeBinomial(mu=mu, theta=torch.tensor(2.0, dtype=torch.bfloat16))
    log_prob = counts.log_prob(torch.tensor([4.0, 100.0]))
    single = NegativeBinomial(mu=mu.detach().float(), theta=torch.tensor(2.0))
    assert torch.equal(log_prob, single.log_prob(torch.tensor([4.0, 100.0])))
    log_prob.sum().backward()
    assert mu.grad is not None
    assert mu.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("mu", "theta", "message"),
    [(-1.0, 1.0, "parameter mu"), (1.0, 0.0, "parameter theta"), (float("nan"), 1.0, "mu")],
)
def test_invalid_parameters_are_named_when_asked_to_check(
    mu: float, theta: float, message: str
) -> None:
    given = {"mu": torch.tensor([mu]), "theta": torch.tensor([theta])}
    NegativeBinomial(**given)
    with pytest.raises(ValueError, match=message):
        NegativeBinomial(**given, validate_args=True)


@pytest.mark.parametrize("count", [-1.0, 0.5])
def test_invalid_counts_are_refused_when_asked_to_check(count: float) -> None:
    one, x = torch.ones(2), torch.tensor([1.0, count])
    NegativeBinomial(mu=one, theta=one).log_prob(x)
    checked = NegativeBinomial(mu=one, theta=one, validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        checked.log_prob(x)
    with pytest.raises(ValueError, match="within the support"):
        checked.expand((3, 2)).log_prob(x)


def test_normalized_means_are_asked_for_by_name() -> None:
    counts = NegativeBinomial(mu=MU, theta=THETA, scale=MU / 100)
    assert counts.get_normalized("mu") is counts.mean
    assert counts.get_normalized("scale") is counts.scale


def test_repr_and_copy_show_the_parameters(counts: NegativeBinomial) -> None:
    assert "mu" in repr(counts)
    assert "theta" in repr(counts)
    again = copy.deepcopy(counts)
    assert torch.equal(again.log_prob(support(5)), counts.log_prob(support(5)))
