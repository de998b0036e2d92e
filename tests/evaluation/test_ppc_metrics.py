"""Statistics of predictive checks against scipy, numpy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from cellvae.evaluation.ppc_metrics import (
    GeneMoments,
    IntervalCoverage,
    Ranks,
    compare_statistics,
    interpolated_quantiles,
    variation_of_cells,
)


@pytest.fixture
def counts() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.poisson(random.gamma(3.0, 1.0, 12), (50, 12)).astype(np.float32)


def test_moments_of_parts_are_those_of_the_whole(counts: np.ndarray) -> None:
    moments = GeneMoments(12)
    for part in np.split(counts, [7, 20]):
        moments.add(torch.from_numpy(part))
    expected = counts.std(axis=0, dtype=float) / counts.mean(axis=0, dtype=float)
    np.testing.assert_allclose(moments.variation(), expected, rtol=1e-12)
    np.testing.assert_allclose(moments.zero_fraction(), (counts == 0).mean(axis=0), rtol=1e-12)
    of_cells = variation_of_cells(torch.from_numpy(counts)).numpy()
    np.testing.assert_allclose(of_cells, stats.variation(counts.astype(float), axis=1), rtol=1e-12)


def test_genes_without_counts_have_no_variation() -> None:
    moments = GeneMoments(2)
    moments.add(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    assert np.isnan(moments.variation()[0])
    assert moments.variation()[1] == 0.5


@pytest.mark.parametrize("rate", [0.05, 1.0, 300.0])
def test_counts_of_the_same_distribution_are_calibrated_however_few_they_are(rate: float) -> None:
    torch.manual_seed(0)
    values = torch.poisson(torch.full((6, 20_000), rate))
    measured, draws = values[0], values[1:]
    ranks = Ranks()
    for cells in (slice(0, 9_000), slice(9_000, None)):
        below = (draws[:, cells] < measured[cells]).sum(dim=0)
        equal = (draws[:, cells] == measured[cells]).sum(dim=0)
        ranks.add(below, equal, 5)
    levels = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(ranks.coverage(levels), levels, atol=4 * 0.5 / np.sqrt(20_000))


@pytest.mark.parametrize(("spread", "above"), [(3.0, True), (0.3, False)])
def test_draws_that_are_too_wide_cover_too_much(spread: float, above: bool) -> None:
    torch.manual_seed(0)
    measured, draws = torch.randn(5_000), spread * torch.randn(9, 5_000)
    ranks = Ranks()
    ranks.add((draws < measured).sum(dim=0), (draws == measured).sum(dim=0), 9)
    assert (ranks.coverage([0.5])[0] > 0.5 + 0.1) is np.bool_(above)


def test_quantiles_and_coverage_are_those_of_numpy(counts: np.ndarray) -> None:
    random = np.random.default_rng(2)
    draws = random.poisson(3.0, (8, 50, 12)).astype(np.float32)
    quantiles = [0.05, 0.3, 0.4, 0.95]
    bounds = np.quantile(draws.astype(float), quantiles, axis=0)
    found = interpolated_quantiles(torch.from_numpy(draws), quantiles)
    np.testing.assert_allclose(found, bounds, rtol=1e-12)
    coverage = IntervalCoverage(quantiles)
    for part in (slice(0, 20), slice(20, 50)):
        coverage.add(torch.from_numpy(counts[part]), torch.from_numpy(draws[:, part]))
    shares = [((counts >= bounds[i]) & (counts <= bounds[3 - i])).mean() for i in (0, 1)]
    expected = (shares[0] - 0.9) ** 2 + (shares[1] - 0.1) ** 2
    assert coverage.error() == pytest.approx(expected)


def test_agreement_leaves_out_what_is_missing() -> None:
    measured, drawn = np.array([1.0, 2.0, np.nan, 4.0]), np.array([2.0, 3.0, 1.0, 5.0])
    scores = compare_statistics(measured, drawn)
    assert scores["mean_absolute_error"] == 1
    assert scores["pearson"] == pytest.approx(1)
    assert scores["spearman"] == pytest.approx(1)
    # One off everywhere, around a mean of 10 / 3.
    assert scores["r2"] == pytest.approx(1 - 3 / (16 / 9 + 1 / 9 + 25 / 9))
    assert np.isnan(compare_statistics(measured, np.ones(4))["pearson"])
