from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import clisi, ilisi
from cellvae.evaluation.integration.lisi import lisi_from_neighbours, perplexity_weights
from cellvae.evaluation.neighbours import find_neighbours


def by_hand(distances: np.ndarray, categories: np.ndarray, perplexity: float) -> float:
    """Effective number of categories around one cell, with a root finder of SciPy."""

    def weights(rate: float) -> np.ndarray:
        raw = np.exp(-rate * (distances - distances.min()))
        return raw / raw.sum()

    def excess(rate: float) -> float:
        p = weights(rate)
        p = p[p > 0]
        return float(-(p * np.log(p)).sum() - np.log(perplexity))

    p = weights(brentq(excess, 1e-9, 1e4, xtol=1e-13))
    return float(1 / sum(p[categories == c].sum() ** 2 for c in np.unique(categories)))


def test_it_is_that_of_a_root_finder_for_every_cell() -> None:
    rng = np.random.default_rng(0)
    distances = np.sort(rng.gamma(3.0, rng.choice([0.01, 1, 50], size=(30, 1)), (30, 45)), axis=1)
    around = rng.integers(0, 4, (30, 45))
    expected = [by_hand(d, a, 15) for d, a in zip(distances, around, strict=True)]
    assert lisi_from_neighbours(distances, around) == pytest.approx(expected, rel=1e-5)


def test_weights_have_the_perplexity_asked_for() -> None:
    distances = np.sort(np.random.default_rng(1).exponential(size=(20, 30)), axis=1)
    weights = perplexity_weights(distances, 7.0)
    entropy = -(weights * np.log(weights)).sum(axis=1)
    assert np.exp(entropy) == pytest.approx(np.full(20, 7.0), rel=1e-5)
    assert weights.sum(axis=1) == pytest.approx(np.ones(20))


def test_equal_distances_give_equal_weights() -> None:
    around = np.array([[0, 0, 1, 1, 2, 2]])
    for distance in (0.0, 3.0):
        assert lisi_from_neighbours(np.full((1, 6), distance), around) == pytest.approx([3.0])


def test_batches_at_random_are_mixed_and_batches_apart_are_not() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(1_500, 3))
    batch = rng.integers(0, 3, 1_500)
    # Simpson's index of draws of B batches with weights w is 1/B + (1 - 1/B) sum w^2 on average.
    every = np.arange(1_500)
    around = find_neighbours(latent, 89, every, every)
    squared = np.square(perplexity_weights(around.distances, 30)).sum(axis=1).mean()
    found = lisi_from_neighbours(around.distances, batch[around.cells])
    assert np.mean(1 / found) == pytest.approx(1 / 3 + 2 / 3 * squared, abs=0.003)
    assert ilisi(latent, batch) == pytest.approx((np.median(found) - 1) / 2)
    assert clisi(latent, batch) == pytest.approx(1 - ilisi(latent, batch), abs=1e-12)
    apart = latent + 100 * batch[:, None]
    assert ilisi(apart, batch) == pytest.approx(0, abs=1e-9)
    assert clisi(apart, batch) == pytest.approx(1, abs=1e-9)


def test_few_cells_are_all_looked_at() -> None:
    latent = np.random.default_rng(0).normal(size=(20, 2))
    assert 0 <= ilisi(latent, np.arange(20) % 2) <= 1


def test_a_single_batch_and_too_few_neighbours_are_refused() -> None:
    latent = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(InvalidOptionError, match="two or more values of batch; got 1"):
        ilisi(latent, np.zeros(20))
    with pytest.raises(InvalidOptionError, match="k to be at least 3"):
        clisi(latent, np.arange(20) % 2, k=2)
