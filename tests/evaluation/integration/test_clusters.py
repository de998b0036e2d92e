from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import cluster_agreement
from cellvae.evaluation.integration.clusters import compare_clusterings


def test_groups_far_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 20)
    latent = rng.normal(size=(60, 2)) + 50 * np.repeat(np.arange(3), 20)[:, None]
    assert cluster_agreement(latent, labels) == pytest.approx((1, 1))


def test_labels_without_regard_to_place_agree_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    found = cluster_agreement(rng.normal(size=(1_000, 3)), rng.integers(0, 4, 1_000))
    assert abs(found.ari) < 0.01
    assert 0 <= found.nmi < 0.02


def test_agreement_is_that_of_counting() -> None:
    rng = np.random.default_rng(3)
    labels, found = rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    table = np.array([[((labels == a) & (found == b)).sum() for b in range(4)] for a in range(3)])
    p = table / 40
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    mutual = (p[p > 0] * np.log(p[p > 0] / outer[p > 0])).sum()
    entropies = [-(q * np.log(q)).sum() for q in (p.sum(0), p.sum(1))]
    pairs = list(combinations(range(40), 2))
    together = [np.array([x[i] == x[j] for i, j in pairs]) for x in (labels, found)]
    both, one, other = (together[0] & together[1]).sum(), *(t.sum() for t in together)
    chance = one * other / len(pairs)
    ari = (both - chance) / ((one + other) / 2 - chance)
    assert compare_clusterings(labels, found) == pytest.approx((mutual / np.mean(entropies), ari))


def test_cells_at_one_place_are_no_error() -> None:
    assert cluster_agreement(np.zeros((10, 2)), np.arange(10) % 2) == pytest.approx((0, 0))


def test_one_seed_gives_the_same_scores_and_leaves_numpy_alone() -> None:
    latent = np.random.default_rng(0).normal(size=(80, 2))
    before = np.random.get_state()[1].copy()
    labels = np.arange(80) % 5
    assert cluster_agreement(latent, labels, seed=4) == cluster_agreement(latent, labels, seed=4)
    assert np.array_equal(before, np.random.get_state()[1])


def test_a_single_label_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="two or more values of labels; got 1"):
        cluster_agreement(np.eye(4), ["x"] * 4)
