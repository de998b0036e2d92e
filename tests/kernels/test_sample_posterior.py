"""Sample from a normal posterior and its divergence by one kernel, against the layers of torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from cellvae.kernels import PosteriorSample, sample_posterior
from cellvae.kernels.dispatch import can_compile

VAR_EPS, MAX_LOG_VARIANCE = 1e-4, 40.0

if not can_compile("sample_posterior"):  # pragma: no cover - numba is a dependency
    pytest.skip("kernels cannot be compiled here", allow_module_level=True)


class Case:
    """Hidden features and both layers."""

    def __init__(self, n_cells: int, n_hidden: int, n_latent: int, spread: float = 1.0) -> None:
        torch.manual_seed(0)
        self.hidden = (spread * torch.randn(n_cells, n_hidden)).requires_grad_()
        self.mean, self.log_variance = nn.Linear(n_hidden, n_latent), nn.Linear(n_hidden, n_latent)

    def leaves(self) -> list[Tensor]:
        return [self.hidden, *self.mean.parameters(), *self.log_variance.parameters()]

    def run(self) -> PosteriorSample:
        torch.manual_seed(1)
        return sample_posterior(
            self.hidden,
            self.mean,
            self.log_variance,
            var_eps=VAR_EPS,
            max_log_variance=MAX_LOG_VARIANCE,
        )

    def by_torch(self) -> tuple[list[Tensor], list[Tensor]]:
        """Leaves and results in double precision, with the same noise."""
        leaves = [t.detach().double().requires_grad_() for t in self.leaves()]
        hidden, mean_weight, mean_bias, variance_weight, variance_bias = leaves
        torch.manual_seed(1)
        noise = torch.randn(len(hidden), len(mean_bias)).double()
        loc = hidden @ mean_weight.t() + mean_bias
        log_variance = hidden @ variance_weight.t() + variance_bias
        scale = (log_variance.clamp(max=MAX_LOG_VARIANCE).exp() + VAR_EPS).sqrt()
        standard = Normal(torch.zeros_like(loc), torch.ones_like(loc))
        kl = kl_divergence(Normal(loc, scale), standard).sum(dim=-1)
        return leaves, [loc, scale, loc + noise * scale, kl]


def gradients(results: list[Tensor], leaves: list[Tensor], used: list[int]) -> list[Tensor]:
    """Gradients of a weighted sum of some of the results."""
    total = torch.zeros((), dtype=results[0].dtype)
    for i in used:
        weights = torch.sin(1 + torch.arange(results[i].numel(), dtype=total.dtype))
        total = total + (results[i] * weights.view_as(results[i])).sum()
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    pairs = zip(leaves, found, strict=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in pairs]


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("used", [[0, 1, 2, 3], [2, 3], [3], [0], [1], [2]])
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 5, 4), (17, 45, 20), (128, 128, 10)])
def test_results_and_gradients_are_those_of_the_layers_in_double_precision(
    shape: tuple[int, int, int], used: list[int], n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    case = Case(*shape)
    found = list(case.run())
    leaves, expected = case.by_torch()
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=2e-6, atol=2e-6)
    for mine, exact in zip(
        gradients(found, case.leaves(), used), gradients(expected, leaves, used), strict=True
    ):
        torch.testing.assert_close(
            mine.double(), exact, rtol=1e-5, atol=1e-5 * max(1.0, float(exact.abs().max()))
        )


def test_the_sample_has_the_random_numbers_of_rsample() -> None:
    case = Case(30, 20, 6)
    loc, scale, sample, _ = case.run()
    after = torch.rand(3)
    torch.manual_seed(1)
    torch.testing.assert_close(sample, Normal(loc, scale).rsample(), rtol=1e-6, atol=1e-6)
    assert torch.equal(torch.rand(3), after)


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        case = Case(301, 130, 12)
        results = list(case.run())
        found.append([*results, *gradients(results, case.leaves(), [0, 1, 2, 3])])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_a_log_variance_at_its_bound_has_no_gradient() -> None:
    case = Case(5, 7, 3)
    with torch.no_grad():
        case.log_variance.weight.zero_()
        case.log_variance.bias.copy_(torch.tensor([MAX_LOG_VARIANCE + 1, 90.0, 1.0]))
    results = case.run()
    assert torch.isfinite(results.scale.square()).all() and torch.isfinite(results.kl).all()
    results.kl.sum().backward()
    assert case.log_variance.bias.grad is not None
    assert (case.log_variance.bias.grad != 0).tolist() == [False, False, True]


@pytest.mark.parametrize("log_variance", [-200.0, -87.0, -30.0, 20.0, 39.9])
def test_narrow_and_wide_posteriors(log_variance: float) -> None:
    case = Case(4, 7, 2)
    with torch.no_grad():
        case.log_variance.weight.zero_()
        case.log_variance.bias.fill_(log_variance)
    found, (leaves, expected) = list(case.run()), case.by_torch()
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=5e-6, atol=1e-6)
    for mine, exact in zip(
        gradients(found, case.leaves(), [2, 3]), gradients(expected, leaves, [2, 3]), strict=True
    ):
        torch.testing.assert_close(
            mine.double(), exact, rtol=1e-5, atol=1e-5 * max(1e-6, float(exact.abs().max()))
        )


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_features_that_are_not_finite_are_noticed_in_their_cell(wrong: float) -> None:
    case = Case(9, 7, 3)
    with torch.no_grad():
        case.hidden[4, 2] = wrong
    results = case.run()
    assert torch.isfinite(results.kl).tolist() == [i != 4 for i in range(9)]


def test_frozen_parts_get_no_gradient_and_noncontiguous_features_are_read_rightly() -> None:
    case = Case(12, 8, 3)
    case.mean.weight.requires_grad_(requires_grad=False)
    case.hidden = case.hidden.detach().t().contiguous().t()
    expected = case.by_torch()[1]
    results = case.run()
    torch.testing.assert_close(results.sample.double(), expected[2], rtol=2e-6, atol=2e-6)
    (results.sample.sum() + results.kl.sum()).backward()
    assert case.mean.weight.grad is None and case.hidden.grad is None
    assert case.mean.bias.grad is not None and case.log_variance.weight.grad is not None


def test_a_weight_that_changed_before_the_backward_pass_is_noticed() -> None:
    case = Case(12, 8, 3)
    results = case.run()
    with torch.no_grad():
        case.mean.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        results.kl.sum().backward()
