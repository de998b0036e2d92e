"""Estimated rates of doublets: known mixtures, and sums over simulated parents."""

from __future__ import annotations

import numpy as np
import pytest

from cellvae.errors import InvalidDataError
from cellvae.inference.doublets.doublet_rate import (
    estimate_rates,
    pooled_groups,
    tail_ratio,
)


def mixture(rate: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of three types with a fraction of doublets, simulated doublets and their parents."""
    random = np.random.default_rng(seed)
    centres = np.eye(3, 5) * 6

    def single(size: int) -> np.ndarray:
        return centres[random.integers(3, size=size)] + random.normal(size=(size, 5))

    n_doublets = round(rate * n)
    doublets = (single(n_doublets) + single(n_doublets)) / 2
    cells = np.concatenate([single(n - n_doublets), doublets])
    parents = random.integers(n, size=(2 * n, 2))
    return (
        cells.astype(np.float32),
        cells[parents].mean(axis=1).astype(np.float32),
        parents,
    )


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.25])
def test_the_rate_of_a_known_mixture_is_found(rate: float) -> None:
    cells, doublets, parents = mixture(rate, 1500, 0)
    groups = np.zeros(len(cells), dtype=np.int64)
    (found,) = estimate_rates(cells, doublets, parents, groups).rates
    assert found == pytest.approx(rate, abs=0.03)


def test_log_odds_rank_doublets_first_and_known_rates_are_kept() -> None:
    cells, doublets, parents = mixture(0.2, 800, 0)
    groups = np.repeat([0, 1], 400)
    known = np.array([0.0, 0.4])
    found = estimate_rates(cells, doublets, parents, groups, given=known)
    assert found.rates.tolist() == known.tolist()
    truth = np.arange(800) >= 640
    above = found.log_odds[truth][:, None] > found.log_odds[~truth]
    assert above.mean() > 0.85
    # Log odds of all simulated doublets, twice as many as the cells, against the cells.
    simulated_rate = 1 / (1 + np.exp(-found.log_odds[truth]))
    assert simulated_rate.mean() > 0.67


def test_groups_have_rates_of_their_own_and_small_ones_share_one() -> None:
    parts = [mixture(rate, n, i) for i, (rate, n) in enumerate([(0.05, 800), (0.2, 800)])]
    parents = np.concatenate([parts[0][2], parts[1][2] + 800])
    groups = np.repeat([0, 1], 800)
    features, doublets = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    first, second = estimate_rates(features, doublets, parents, groups).rates
    assert first == pytest.approx(0.05, abs=0.025)
    assert second == pytest.approx(0.2, abs=0.03)
    assert pooled_groups(np.repeat([0, 1, 2], [10, 600, 20])).tolist() == (
        [1] * 10 + [0] * 600 + [1] * 20
    )


def test_without_known_parents_there_is_one_round() -> None:
    cells, doublets, _ = mixture(0.05, 600, 1)
    none = np.full((len(doublets), 2), -1)
    (found,) = estimate_rates(cells, doublets, none, np.zeros(600, dtype=np.int64)).rates
    assert 0.02 < found < 0.1


def test_the_ratio_is_the_lowest_above_any_threshold() -> None:
    cells = np.array([-1.0] * 90 + [1.0] * 10)
    doublets = np.array([-1.0] * 50 + [1.0] * 50)
    assert tail_ratio(cells, doublets, 0.5) == pytest.approx(0.2)  # 10 of 100 to 50 of 100
    assert tail_ratio(cells, doublets, 0.6) == pytest.approx(1.0)
    assert tail_ratio(cells, cells, 0.05) == pytest.approx(1.0)


def test_few_cells_need_an_expected_rate() -> None:
    few = np.zeros((10, 2), dtype=np.float32)
    with pytest.raises(InvalidDataError, match="Give expected_rate"):
        estimate_rates(few, few, np.zeros((10, 2), dtype=np.int64), np.zeros(10, dtype=np.int64))
