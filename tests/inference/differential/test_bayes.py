"""Probabilities from draws, against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from cellvae.errors import InvalidOptionError
from cellvae.inference.differential.bayes import (
    bayes_factor,
    estimate_delta,
    estimate_pseudocount,
    log_fold_change,
    probability_of_change,
    probability_of_order,
    select_at_fdr,
    summarize_changes,
)

N = 40_000


@pytest.mark.parametrize(("mean", "delta"), [(0.0, 0.25), (0.4, 0.25), (-1.0, 0.5)])
def test_probabilities_of_normal_changes(mean: float, delta: float) -> None:
    torch.manual_seed(0)
    changes = torch.randn(N, 1) + mean
    up, down = stats.norm.sf(delta, mean), stats.norm.cdf(-delta, mean)
    three = probability_of_change(changes, delta, "three").item()
    assert three == pytest.approx(max(up, down), abs=0.012)
    assert probability_of_change(changes, delta, "two").item() == pytest.approx(
        up + down, abs=0.012
    )


def test_probability_of_order_of_gamma_variables() -> None:
    torch.manual_seed(0)
    first = torch.distributions.Gamma(2.0, 1.0).sample((N, 1))
    second = torch.distributions.Gamma(3.0, 1.0).sample((N, 1))
    # X / (X + Y) is Beta(2, 3), and X > Y where it is above a half.
    expected = stats.beta.sf(0.5, 2, 3)
    assert probability_of_order(first, second).item() == pytest.approx(expected, abs=0.012)


def test_an_increase_is_counted_at_delta_and_a_decrease_beyond_it() -> None:
    changes = torch.tensor([[0.5], [-0.5], [-0.6], [0.0]])
    assert probability_of_change(changes, 0.5, "two").item() == 0.5


def test_log_fold_change() -> None:
    change = log_fold_change(torch.tensor([[0.3]]), torch.tensor([[0.1]]), 0.1)
    assert change.item() == pytest.approx(1.0)


def test_bayes_factor_is_the_logarithm_of_the_odds() -> None:
    factors = bayes_factor(torch.tensor([0.5, 0.75, 1.0, 0.0], dtype=torch.float64))
    expected = [0.0, np.log(3), np.log(1e8), -np.log(1e8)]
    np.testing.assert_allclose(factors, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", [7, 8])
def test_summary_equals_numpy(n: int) -> None:
    changes = np.random.default_rng(0).normal(size=(n, 3))
    found = summarize_changes(torch.from_numpy(changes))
    for name in ("mean", "median", "std", "min", "max"):
        np.testing.assert_allclose(
            found._asdict()[name], getattr(np, name)(changes, axis=0), err_msg=name
        )


def test_pseudocount_is_the_larger_quantile_of_unexpressed_genes_by_genes() -> None:
    first, second = torch.arange(10.0), torch.arange(10.0) * 2
    none = torch.zeros(10, dtype=torch.bool)
    some = torch.arange(10) < 5
    expected = np.quantile(np.arange(5.0), 0.9) / 10
    assert estimate_pseudocount((first, second), (some, none)) == pytest.approx(expected)
    assert estimate_pseudocount((first, second), (some, some)) == pytest.approx(2 * expected)
    assert estimate_pseudocount((first, second), (none, none)) == 1e-10


def test_delta_is_a_part_of_the_distance_of_the_outer_components() -> None:
    noise = np.random.default_rng(0).normal(scale=0.05, size=600)
    means = noise + np.repeat([-2.0, 0.0, 3.0], 200)
    assert estimate_delta(means) == pytest.approx(0.6 * 2.5, abs=0.02)
    assert estimate_delta(noise * 0.1) == 0.1
    with pytest.raises(InvalidOptionError, match="at least 3 genes"):
        estimate_delta(means[:2])


def test_calls_are_the_largest_set_within_the_false_discovery_rate() -> None:
    random = np.random.default_rng(0)
    for fdr in (0.05, 0.2):
        chances = random.beta(0.5, 0.5, 50)
        called = select_at_fdr(chances, fdr)
        best = np.sort(chances)[::-1]
        sizes = [k for k in range(1, 51) if (1 - best[:k]).mean() <= fdr]
        assert called.sum() == max(sizes)
        assert chances[called].min() >= chances[~called].max()
    assert not select_at_fdr(np.full(5, 0.5), 0.05).any()
