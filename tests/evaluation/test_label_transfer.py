from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import knn_accuracy, knn_f1
from cellvae.evaluation.label_transfer import label_transfer


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 3))


def test_f1_without_ties_is_that_of_scikit_learn(points: np.ndarray) -> None:
    labels = np.where(points[:, 0] + np.random.default_rng(1).normal(size=60) > 0.6, "a", "b")
    train, test = np.arange(40), np.arange(40, 60)
    predicted = KNeighborsClassifier(7).fit(points[train], labels[train]).predict(points[test])
    expected = f1_score(labels[test], predicted, average="macro")
    assert 0.3 < expected < 1
    assert knn_f1(points, labels, k=7, train=train, test=test) == pytest.approx(expected)


def test_tied_labels_are_each_predicted_to_an_equal_share() -> None:
    # Cell 0 (label 0) sees 0, 1: half right. Cells 1 and 2 (label 1) see 1, 1 and 0, 0.
    found = label_transfer(np.array([[0, 1], [1, 1], [0, 0]]), np.array([0, 1, 1]))
    # Label 0: hits 1/2, predicted 1/2 + 1, true 1. Label 1: hits 1, predicted 1/2 + 1, true 2.
    assert found.f1 == pytest.approx((2 * 0.5 / (1.5 + 1) + 2 * 1 / (1.5 + 2)) / 2)
    assert found.accuracy == pytest.approx((0.5 + 1 + 0) / 3)


def test_accuracy_is_that_of_the_other_function(points: np.ndarray) -> None:
    labels = np.random.default_rng(2).integers(0, 4, 60)
    every = np.arange(60)
    order = np.argsort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)
    around = np.array([row[row != cell][:6] for cell, row in zip(every, order, strict=True)])
    assert label_transfer(labels[around], labels).accuracy == pytest.approx(
        knn_accuracy(points, labels, k=6)
    )


def test_a_label_that_only_sources_have_is_not_in_the_mean() -> None:
    latent = np.array([[0.0], [0.1], [5.0], [5.1], [0.05]])
    labels = ["x", "x", "y", "y", "x"]
    assert knn_f1(latent, labels, k=1, train=[0, 1, 2, 3], test=[4]) == 1


def test_cells_without_a_label_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InvalidOptionError, match="1 of 60 have none"):
        knn_f1(points, [None, *"x" * 59])
