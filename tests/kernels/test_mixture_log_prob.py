"""Compiled log-probability of a mixture against the distribution in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cellvae.distributions import NegativeBinomialMixture
from cellvae.kernels import mixture_log_prob
from cellvae.settings import settings

N_CELLS, N_FEATURES = 37, 29
NAMES = ("mu1", "mu2", "theta1", "theta2", "mixture_logits")


def inputs(*, theta_per_cell: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    shape = (N_CELLS, N_FEATURES)
    of_theta = shape if theta_per_cell else (N_FEATURES,)
    counts = torch.poisson(torch.distributions.Gamma(0.5, 0.02).sample(shape))
    counts[0] = 0
    counts[1, :4] = torch.tensor([4000.0, 20_000.0, 1e6, 2.5])
    return counts, {
        "mu1": (3 * torch.randn(shape)).exp(),
        "mu2": (3 * torch.randn(shape)).exp() + 20,
        "theta1": (2 * torch.randn(of_theta)).exp(),
        "theta2": (2 * torch.randn(of_theta)).exp(),
        "mixture_logits": 4 * torch.randn(shape),
    }


@pytest.mark.parametrize("theta_per_cell", [False, True])
def test_value_and_gradient_are_those_of_the_distribution(theta_per_cell: bool) -> None:
    counts, given = inputs(theta_per_cell=theta_per_cell)
    weight = torch.rand(counts.shape)
    narrow = {name: values.clone().requires_grad_() for name, values in given.items()}
    wide = {name: values.double().requires_grad_() for name, values in given.items()}

    value = mixture_log_prob(counts, *(narrow[name] for name in NAMES))
    (value * weight).sum().backward()
    expected = NegativeBinomialMixture(**wide).log_prob(counts.double())
    (expected * weight).sum().backward()

    torch.testing.assert_close(value.double(), expected, rtol=3e-6, atol=3e-6)
    for name in NAMES:
        gradient = wide[name].grad
        torch.testing.assert_close(
            narrow[name].grad.double(), gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item()
        )


def test_the_distribution_uses_it_for_many_features(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, given = inputs()
    found = {}
    for kernels in ("torch", "compiled"):
        monkeypatch.setitem(settings.values, "kernels", kernels)
        own = {name: values.clone().requires_grad_() for name, values in given.items()}
        value = NegativeBinomialMixture(**own).log_prob(counts)
        assert type(value.grad_fn).__name__.startswith("Mixture") == (kernels == "compiled")
        found[kernels] = value
    torch.testing.assert_close(found["compiled"], found["torch"], rtol=1e-5, atol=1e-5)


def test_draws_by_draw_and_double_precision_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(settings.values, "kernels", "compiled")
    counts, given = inputs()
    mixture = NegativeBinomialMixture(**given)
    several = mixture.log_prob(counts.expand(3, *counts.shape))
    torch.testing.assert_close(several[1], mixture.log_prob(counts), rtol=1e-5, atol=1e-5)
    wide = {name: values.double() for name, values in given.items()}
    exact = NegativeBinomialMixture(**wide).log_prob(counts)
    assert exact.dtype == torch.float64


def test_one_component_alone_by_hand() -> None:
    one = torch.ones(1, 2)
    counts = torch.tensor([[2.0, 0.0]])

    certain = mixture_log_prob(counts, 3 * one, one, one, one, 60 * one)
    even = mixture_log_prob(counts, 3 * one, 3 * one, one, one, 0 * one)

    # Mean 3 and inverse dispersion 1: the geometric distribution with success 1/4.
    by_hand = torch.tensor([[math.log(0.25 * 0.75**2), math.log(0.25)]])
    torch.testing.assert_close(certain, by_hand)
    torch.testing.assert_close(even, by_hand)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_not_lost(name: str, wrong: float) -> None:
    if name.startswith("theta") and wrong == math.inf:
        pytest.skip("An infinite inverse dispersion is the Poisson distribution.")
    counts, given = inputs()
    given[name].view(-1)[3] = wrong

    value = mixture_log_prob(counts, *(given[part] for part in NAMES))

    assert not torch.isfinite(value).all()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    counts, given = inputs()
    before = torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(mixture_log_prob(counts, *(given[name] for name in NAMES)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
