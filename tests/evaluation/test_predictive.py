"""Statistics of predictive checks against scipy, numpy and closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from cellvae.evaluation.predictive import (
    GeneMoments,
    GroupMoments,
    Ranks,
    agreement,
    recovery,
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


def test_groups_are_compared_as_scipy_does(counts: np.ndarray) -> None:
    groups = np.random.default_rng(1).integers(0, 3, 50)
    moments = GroupMoments(3, 12, 100.0)
    for part in (slice(0, 13), slice(13, 50)):
        moments.add(torch.from_numpy(counts[part]), torch.from_numpy(groups[part]))
    logged = np.log1p(100.0 * counts / counts.sum(axis=1, keepdims=True))
    for group in range(3):
        mine, rest = logged[groups == group], logged[groups != group]
        found = stats.ttest_ind(mine, rest, equal_var=False)
        table = moments.against_rest(group)
        np.testing.assert_allclose(table["t"], found.statistic, rtol=1e-4)
        adjusted = stats.false_discovery_control(found.pvalue)
        np.testing.assert_allclose(table["p_value"], adjusted, rtol=1e-3)
        fold = np.log2(
            (np.expm1(mine.mean(axis=0)) + 0.001) / (np.expm1(rest.mean(axis=0)) + 0.001)
        )
        np.testing.assert_allclose(table["lfc"], fold, atol=1e-4)


def test_recovery_counts_genes_that_both_find() -> None:
    measured = pd.DataFrame(
        {"t": [9.0, 8.0, 7.0, 0.1, 0.2], "p_value": [1e-9, 1e-9, 1e-9, 0.9, 0.9], "lfc": range(5)}
    )
    drawn = measured.assign(p_value=[1e-9, 1e-9, 0.9, 1e-9, 0.9], t=[9.0, 8.0, 0.05, 7.0, 0.2])
    scores = recovery(measured, drawn, 0.001, 2)
    assert scores["recall"] == scores["precision"] == scores["f1"] == pytest.approx(2 / 3)
    # Of the 3 x 2 pairs of a true and another gene, the four of the two first are in order.
    assert scores["roc_auc"] == pytest.approx(4 / 6)
    assert scores["lfc_mae"] == 0
    same = recovery(measured, measured, 0.001, 2)
    assert same["recall"] == same["roc_auc"] == 1
    assert same["lfc_pearson"] == pytest.approx(1)
    none = recovery(measured.assign(p_value=1.0), drawn.assign(p_value=1.0), 0.001, 2)
    assert none["recall"] == 1  # the two largest |t| of both


def test_agreement_leaves_out_what_is_missing() -> None:
    measured, drawn = np.array([1.0, 2.0, np.nan, 4.0]), np.array([2.0, 3.0, 1.0, 5.0])
    scores = agreement(measured, drawn)
    assert scores["mean_absolute_error"] == 1
    assert scores["pearson"] == pytest.approx(1)
    assert scores["spearman"] == pytest.approx(1)
    assert np.isnan(agreement(measured, np.ones(4))["pearson"])
