from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import batch_mixing, knn_accuracy
from cellvae.evaluation.neighbours import expected_entropy, nearest_cells


def entropy(categories: object) -> float:
    """Entropy of categories in nats, the textbook way."""
    _, counts = np.unique(np.asarray(categories), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def others_by_distance(points: np.ndarray, cell: int) -> np.ndarray:
    """All other cells, the nearest first."""
    distances = np.linalg.norm(points - points[cell], axis=1)
    order = np.argsort(distances)
    return order[order != cell]


@pytest.fixture
def points() -> np.ndarray:
    """50 cells in 4 dimensions."""
    return np.random.default_rng(0).normal(size=(50, 4))


@pytest.fixture
def groups() -> np.ndarray:
    return np.random.default_rng(1).choice(["a", "b", "c"], size=50, p=[0.5, 0.3, 0.2])


def test_separated_groups_have_accuracy_1_and_mixing_0() -> None:
    latent = np.concatenate([np.arange(20.0), 1000 + np.arange(20.0)])[:, None]
    groups = np.repeat(["left", "right"], 20)
    assert knn_accuracy(latent, groups) == 1
    assert batch_mixing(latent, groups) == 0


def test_accuracy_of_alternating_labels_on_a_line() -> None:
    # Both nearest neighbours of an inner cell have the other label; an end cell sees one of each.
    latent = np.arange(10.0)[:, None]
    labels = np.tile(["even", "odd"], 5)
    assert knn_accuracy(latent, labels, k=2) == pytest.approx((0 * 8 + 0.5 * 2) / 10)


@pytest.mark.parametrize("k", [1, 3, 5, 15, 49])
def test_accuracy_is_that_of_brute_force_with_fair_ties(
    points: np.ndarray, groups: np.ndarray, k: int
) -> None:
    credits = []
    for cell in range(50):
        around = list(groups[others_by_distance(points, cell)[:k]])
        votes = {label: around.count(label) for label in around}
        commonest = [label for label in votes if votes[label] == max(votes.values())]
        credits.append((groups[cell] in commonest) / len(commonest))
    assert knn_accuracy(points, groups, k=k) == pytest.approx(np.mean(credits), abs=1e-12)


def test_a_tie_counts_as_one_over_the_number_of_labels_in_it() -> None:
    # The cell at 0 is scored; its neighbours at 1, 2, 3 have a label each, and none shares its own
    # where it is "d".
    latent = np.array([[0.0], [1.0], [2.0], [3.0]])
    one = {"k": 3, "test": [0]}
    assert knn_accuracy(latent, ["b", "a", "b", "c"], **one) == pytest.approx(1 / 3)
    assert knn_accuracy(latent, ["d", "a", "b", "c"], **one) == 0
    assert knn_accuracy(latent, ["b", "b", "b", "c"], **one) == 1
    assert knn_accuracy(latent, ["c", "b", "b", "c"], **one) == 0


def test_accuracy_on_test_cells_is_that_of_scikit_learn(
    points: np.ndarray, groups: np.ndarray
) -> None:
    # Two labels and an odd number of neighbours leave no ties, which scikit-learn breaks otherwise.
    labels = groups == "a"
    train, test = np.arange(0, 35), np.arange(35, 50)
    classifier = KNeighborsClassifier(7).fit(points[train], labels[train])
    expected = classifier.score(points[test], labels[test])
    assert knn_accuracy(points, labels, k=7, train=train, test=test) == pytest.approx(expected)
    mask = np.arange(50) < 35
    assert knn_accuracy(points, labels, k=7, train=mask, test=~mask) == pytest.approx(expected)


def test_cells_without_a_label_can_be_left_out(points: np.ndarray, groups: np.ndarray) -> None:
    labels = groups.astype(object)
    labels[[3, 8]] = None
    labels[11] = np.nan
    labelled = np.setdiff1d(np.arange(50), [3, 8, 11])
    with pytest.raises(InvalidOptionError, match="3 of 50 have none.*train=labelled"):
        knn_accuracy(points, labels)
    chosen = knn_accuracy(points, labels, train=labelled, test=labelled)
    assert chosen == knn_accuracy(points[labelled], groups[labelled])


def test_a_cell_is_not_its_own_neighbour_even_among_duplicates() -> None:
    same = np.zeros((30, 2))
    every = np.arange(30)
    found = nearest_cells(same, 4, every, every)
    assert found.shape == (30, 4)
    assert not (found == every[:, None]).any()
    assert all(len(set(row)) == 4 for row in found)


def test_neighbours_are_those_of_brute_force_where_cells_are_scored_that_are_no_sources(
    points: np.ndarray,
) -> None:
    sources, scored = np.arange(10, 50), np.array([2, 30, 45])
    found = nearest_cells(points, 6, sources, scored)
    for cell, row in zip(scored, found, strict=True):
        ordered = [c for c in others_by_distance(points, cell) if c >= 10]
        assert list(row) == ordered[:6]


@pytest.mark.parametrize("k", [2, 5, 15])
def test_mixing_is_that_of_brute_force(points: np.ndarray, groups: np.ndarray, k: int) -> None:
    around = [entropy(groups[others_by_distance(points, cell)[:k]]) for cell in range(50)]
    chance = expected_entropy(np.unique(groups, return_counts=True)[1], k)
    # Groups were drawn without regard to the points; at 5 they are by luck more even than chance.
    assert batch_mixing(points, groups, k=k) == pytest.approx(min(1, np.mean(around) / chance))


@pytest.mark.parametrize(("sizes", "k"), [((3, 3), 2), ((5, 2, 1), 3), ((1, 6), 4), ((4, 3), 6)])
def test_entropy_of_chance_is_that_of_all_possible_draws(sizes: tuple[int, ...], k: int) -> None:
    batch = np.repeat(np.arange(len(sizes)), sizes)
    draws = [
        entropy(batch[list(drawn)])
        for cell in range(len(batch))
        for drawn in combinations([c for c in range(len(batch)) if c != cell], k)
    ]
    assert expected_entropy(np.array(sizes), k) == pytest.approx(np.mean(draws), abs=1e-12)


def test_entropy_of_chance_nears_that_of_the_batch_shares_as_k_grows() -> None:
    assert expected_entropy(np.array([30_000, 10_000]), 3_000) == pytest.approx(
        entropy([0, 0, 0, 1]), abs=1e-3
    )


def test_neighbourhoods_of_all_other_cells_are_mixed_as_chance(points: np.ndarray) -> None:
    batch = np.arange(50) % 3 == 0
    assert batch_mixing(points, batch, k=49) == pytest.approx(1, abs=1e-12)


def test_batches_drawn_at_random_are_mixed_as_chance_whatever_their_sizes() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(3_000, 3))
    for shares in ([0.5, 0.5], [0.9, 0.1], [0.7, 0.1, 0.1, 0.1]):
        batch = rng.choice(len(shares), size=3_000, p=shares)
        assert batch_mixing(latent, batch) == pytest.approx(1, abs=0.02)


def test_neighbourhoods_more_even_than_chance_count_as_1() -> None:
    # On a line where batches alternate, the two nearest of an inner cell are of the other batch,
    # the four nearest are two and two.
    latent = np.arange(100.0)[:, None]
    assert batch_mixing(latent, np.arange(100) % 2, k=4) == 1


def test_one_mixed_and_one_separate_half_are_half_mixed() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(2_000, 2))
    batch = rng.integers(0, 2, size=2_000)
    latent[1_000:, 0] += 1_000 * (1 + batch[1_000:])
    assert batch_mixing(latent, batch) == pytest.approx(0.5, abs=0.02)


def test_a_single_batch_is_refused(points: np.ndarray) -> None:
    with pytest.raises(InvalidOptionError, match="two or more values of batch; got 1"):
        batch_mixing(points, ["only"] * 50)


@pytest.mark.parametrize("k", [0, -1, 50, 2.5, True])
def test_a_number_of_neighbours_that_cannot_be_is_refused(points: np.ndarray, k: object) -> None:
    with pytest.raises(InvalidOptionError, match=r"whole number from 1 to 49.*got "):
        knn_accuracy(points, np.arange(50) % 2, k=k)  # type: ignore[arg-type]


def test_mixing_with_one_neighbour_is_refused(points: np.ndarray) -> None:
    with pytest.raises(InvalidOptionError, match="at least 2"):
        batch_mixing(points, np.arange(50) % 2, k=1)


def test_all_of_the_train_cells_can_be_neighbours_of_cells_outside(points: np.ndarray) -> None:
    labels = np.arange(50) < 30
    assert knn_accuracy(points, labels, k=10, train=np.arange(10), test=np.arange(30, 50)) == 0
    with pytest.raises(InvalidOptionError, match="from 1 to 9,"):
        knn_accuracy(points, labels, k=10, train=np.arange(10))


def test_arrays_that_do_not_fit_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InvalidOptionError, match="each of the 50 cells of latent"):
        knn_accuracy(points, np.zeros(49))
    with pytest.raises(InvalidOptionError, match=r"\[cells, latent\]; got shape \(50,\)"):
        knn_accuracy(points[:, 0], np.zeros(50))
    holed = points.copy()
    holed[7, 1] = np.nan
    with pytest.raises(InvalidOptionError, match="others in 1 cells: '7'"):
        batch_mixing(holed, np.arange(50) % 2)


@pytest.mark.parametrize(
    "cells", [[50], [-1], [], [0.5], [[1, 2], [3, 4]], np.ones(49, dtype=bool)]
)
def test_cells_that_do_not_exist_are_refused(points: np.ndarray, cells: object) -> None:
    with pytest.raises(InvalidOptionError, match="Expected train (as indices from 0 to|in one)"):
        knn_accuracy(points, np.zeros(50), train=cells)  # type: ignore[arg-type]


def test_cells_of_any_shape_are_the_same(points: np.ndarray) -> None:
    labels, mask = np.arange(50) % 3, np.arange(50) < 40
    expected = knn_accuracy(points, labels, train=mask, test=~mask)
    for shape in (np.where, lambda x: x[:, None], lambda x: np.flatnonzero(x)[None]):
        assert knn_accuracy(points, labels, train=shape(mask), test=shape(~mask)) == expected
    assert knn_accuracy(points, labels, train=slice(40), test=slice(40, None)) == expected
    with pytest.raises(InvalidOptionError, match="train as positions or a mask; got a 0 or 1"):
        knn_accuracy(points, labels, train=mask.astype(int))


def test_a_cell_chosen_twice_is_refused(points: np.ndarray) -> None:
    with pytest.raises(InvalidOptionError, match="each cell once in test"):
        knn_accuracy(points, np.zeros(50), test=[1, 1])
