from __future__ import annotations

import numpy as np
import pytest

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import graph_connectivity


def by_hand(latent: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Connectivity by walking from cell to cell."""
    distances = np.linalg.norm(latent[:, None] - latent, axis=2)
    np.fill_diagonal(distances, np.inf)
    near = np.zeros(distances.shape, dtype=bool)
    np.put_along_axis(near, np.argsort(distances, axis=1)[:, :k], values=True, axis=1)
    near |= near.T
    shares = []
    for label in np.unique(labels):
        left, sizes = set(np.flatnonzero(labels == label)), []
        n_cells = len(left)
        while left:
            stack, size = [left.pop()], 0
            while stack:
                cell, size = stack.pop(), size + 1
                next_to = left & set(np.flatnonzero(near[cell]))
                left -= next_to
                stack += next_to
            sizes.append(size)
        shares.append(max(sizes) / n_cells)
    return float(np.mean(shares))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_it_is_that_of_walking(k: int) -> None:
    rng = np.random.default_rng(0)
    latent, labels = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
    expected = by_hand(latent, labels, k)
    assert 0.05 < expected < 1
    assert graph_connectivity(latent, labels, k=k) == pytest.approx(expected)


def test_a_label_in_two_places_counts_with_its_larger_part() -> None:
    # Label x: 3 cells at 0 and 1 cell far off beside y; y: 4 cells in one place.
    latent = np.array([0.0, 0.1, 0.2, 50.15, 50.0, 50.1, 50.2, 50.3])[:, None]
    assert graph_connectivity(latent, list("xxxxyyyy"), k=3) == pytest.approx((3 / 4 + 1) / 2)


def test_cells_without_a_label_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="1 of 4 have none"):
        graph_connectivity(np.eye(4), ["x", None, "y", "y"], k=1)
