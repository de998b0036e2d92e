from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import asw_batch, asw_label, silhouette
from cellvae.evaluation.silhouette import widths


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
    assert widths(points, groups) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(sys.modules["cellvae.evaluation.silhouette"], "CHUNK", 1_000)
    assert widths(points, groups) == pytest.approx(expected, abs=1e-12)


def test_widths_of_cells_at_one_place_are_zero() -> None:
    assert widths(np.zeros((6, 2)), np.arange(6) % 2).tolist() == [0.0] * 6


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
