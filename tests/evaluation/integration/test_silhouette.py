from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_samples

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import asw_batch, asw_label, bras, isolated_labels
from cellvae.evaluation.integration.silhouette import silhouette, silhouette_widths


def test_width_of_two_pairs_on_a_line() -> None:
    # Pairs at 0, 1 and 10, 11: a = 1; b = 10.5 for the outer and 9.5 for the inner cells.
    latent = np.array([[0.0], [1.0], [10.0], [11.0]])
    expected = (2 * 9.5 / 10.5 + 2 * 8.5 / 9.5) / 4
    assert silhouette(latent, ["x", "x", "y", "y"]) == pytest.approx(expected, abs=1e-12)


def test_cells_nearer_to_the_other_group_have_a_negative_width() -> None:
    # Pairs 0, 10 and 1, 11: a = 10; b = (1 + 11) / 2 for the outer, (9 + 1) / 2 for the inner.
    latent = np.array([[0.0], [10.0], [1.0], [11.0]])
    expected = (2 * (6 - 10) / 10 + 2 * (5 - 10) / 10) / 4
    assert silhouette(latent, [0, 0, 1, 1]) == pytest.approx(expected, abs=1e-12)


def test_the_only_cell_of_a_group_has_width_zero() -> None:
    latent = np.array([[0.0], [1.0], [10.0]])
    assert silhouette(latent, ["x", "x", "y"]) == pytest.approx((0.9 + 8 / 9 + 0) / 3)


def test_groups_that_cannot_be_told_apart_are_refused() -> None:
    latent = np.arange(4.0)[:, None]
    with pytest.raises(InvalidOptionError, match="two or more values of labels; got 1"):
        silhouette(latent, ["x"] * 4)
    with pytest.raises(InvalidOptionError, match="fewer groups than cells; got 4"):
        silhouette(latent, list("wxyz"))
    with pytest.raises(InvalidOptionError, match="1 of 4 have none"):
        silhouette(latent, ["x", "x", "y", None])


def test_widths_are_those_of_scikit_learn_in_whatever_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    points, groups = rng.normal(size=(90, 3)), rng.choice([2, 5, 9, 11], 90, p=[0.6, 0.2, 0.1, 0.1])
    expected = silhouette_samples(points, groups)
    assert silhouette_widths(points, groups) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(sys.modules["cellvae.evaluation.integration.silhouette"], "CHUNK", 1_000)
    assert silhouette_widths(points, groups) == pytest.approx(expected, abs=1e-12)


def test_widths_of_cells_at_one_place_are_zero() -> None:
    assert silhouette_widths(np.zeros((6, 2)), np.arange(6) % 2).tolist() == [0.0] * 6


def test_labels_are_scaled_to_0_and_1() -> None:
    latent = np.array([[0.0], [1.0], [10.0], [11.0]])
    width = (2 * 9.5 / 10.5 + 2 * 8.5 / 9.5) / 4
    assert asw_label(latent, ["x", "x", "y", "y"]) == pytest.approx((width + 1) / 2)


def test_batches_are_compared_within_labels() -> None:
    rng = np.random.default_rng(0)
    latent, batch = rng.normal(size=(120, 2)), rng.integers(0, 3, 120)
    labels = rng.integers(0, 4, 120)
    batch[labels == 3] = 0
    expected = [
        np.mean(1 - np.abs(silhouette_samples(latent[labels == x], batch[labels == x])))
        for x in (0, 1, 2)
    ]
    assert asw_batch(latent, batch, labels) == pytest.approx(np.mean(expected))
    whole = np.mean(1 - np.abs(silhouette_samples(latent, batch)))
    assert asw_batch(latent, batch) == pytest.approx(whole)


def test_no_label_with_batches_to_compare_gives_nan() -> None:
    assert np.isnan(asw_batch(np.eye(4), [0, 0, 1, 1], [0, 0, 1, 1]))


def brute_force(points: np.ndarray, groups: np.ndarray, metric: str, between: str) -> list[float]:
    """Silhouette width of each cell from all distances."""
    distances = cdist(points, points, metric)
    found = []
    for i, own in enumerate(groups):
        mine = np.flatnonzero((groups == own) & (np.arange(len(groups)) != i))
        others = [distances[i, groups == g].mean() for g in np.unique(groups) if g != own]
        a = distances[i, mine].mean()
        b = max(others) if between == "furthest" else distances[i, groups != own].mean()
        found.append((b - a) / max(a, b))
    return found


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("between", ["mean_other", "furthest"])
def test_bras_compares_each_batch_with_all_others(metric: Any, between: Any) -> None:
    rng = np.random.default_rng(0)
    latent, batch = rng.normal(size=(100, 4)) + 1, rng.integers(0, 3, 100)
    labels = rng.integers(0, 3, 100)
    batch[labels == 2] = 1
    expected = np.mean(
        [
            np.mean(1 - np.abs(brute_force(latent[at], batch[at], metric, between)))
            for at in (labels == 0, labels == 1)
        ]
    )
    kwargs = {"metric": metric, "between_cluster_distances": between}
    assert bras(latent, batch, labels, **kwargs) == pytest.approx(expected, abs=1e-12)
    whole = np.mean(1 - np.abs(brute_force(latent, batch, metric, between)))
    assert bras(latent, batch, **kwargs) == pytest.approx(whole, abs=1e-12)


def test_bras_sees_batches_that_pairs_of_others_hide() -> None:
    # Two pairs of batches that overlap, far from each other.
    rng = np.random.default_rng(0)
    batch = np.arange(200) % 4
    centre = np.where((batch < 2)[:, None], [10.0, 0.0], [0.0, 10.0])
    latent = centre + rng.normal(size=(200, 2))
    assert asw_batch(latent, batch) > 0.9
    assert bras(latent, batch) < 0.2


def test_words_of_bras_are_checked() -> None:
    with pytest.raises(InvalidOptionError, match="'cosine' or 'euclidean'; got 'cosin'"):
        bras(np.eye(4), [0, 0, 1, 1], metric="cosin")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="'mean_other' or 'furthest'; got 'nearest'"):
        bras(np.eye(4), [0, 0, 1, 1], between_cluster_distances="nearest")  # type: ignore[arg-type]


def test_labels_of_the_fewest_batches_are_isolated() -> None:
    rng = np.random.default_rng(0)
    latent, labels = rng.normal(size=(90, 2)), np.arange(90) % 3
    batch = np.where(labels == 2, 0, rng.integers(0, 2, 90))
    scaled = (silhouette_samples(latent, labels) + 1) / 2
    assert isolated_labels(latent, batch, labels) == pytest.approx(scaled[labels == 2].mean())
    batch = rng.integers(0, 2, 90)
    expected = np.mean([scaled[labels == label].mean() for label in (0, 1, 2)])
    assert isolated_labels(latent, batch, labels) == pytest.approx(expected)
