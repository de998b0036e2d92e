"""Scores from the nearest neighbours of each cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.inputs import (
    category_codes,
    check_complete,
    check_latent,
    check_positions,
    check_several,
)


class Neighbours(NamedTuple):
    """Nearest cells of each cell, the nearest first."""

    cells: NDArray[np.int64]
    """Their indices, [cells, k]."""
    distances: NDArray[np.float64]
    """Their Euclidean distances, [cells, k]."""


def knn_accuracy(
    latent: ArrayLike,
    labels: ArrayLike,
    *,
    k: int = 15,
    train: ArrayLike | None = None,
    test: ArrayLike | None = None,
) -> float:
    """Fraction of cells whose label is the most common among their nearest neighbours.

    A cell is never its own neighbour, so that by default this is a leave-one-out score. If m labels
    are equally common, a cell with one of them counts as 1/m, the expectation of a random choice.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell.
    train
        Cells among which neighbours are searched, as indices or a boolean mask; None for all.
    test
        Cells that are scored, as indices or a boolean mask; None for all.

    Returns
    -------
    Fraction from 0 to 1.

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a chosen cell has no label, or there are fewer than `k`
        other cells.
    """
    points = check_latent(latent)
    codes = category_codes(labels, len(points), "labels")
    sources = check_positions(train, len(points), "train")
    scored = check_positions(test, len(points), "test")
    check_complete(
        codes[np.union1d(sources, scored)],
        "a label",
        "Name those that have one: train=labelled, test=labelled.",
    )
    around = codes[nearest_cells(points, k, sources, scored)]
    votes = count_votes(around)
    most = votes.max(axis=1)
    own_votes = (around == codes[scored, None]).sum(axis=1)
    n_commonest = (votes == most[:, None]).sum(axis=1) / most
    return float(np.mean((own_votes == most) / n_commonest))


def batch_mixing(latent: ArrayLike, batch: ArrayLike, *, k: int = 15) -> float:
    """Batch mixing: entropy of the batches around a cell, relative to that of random cells.

    The entropy of the batches among the `k` nearest other cells, averaged over cells, is divided
    by its expectation for `k` random other cells (without replacement, which accounts for unequal
    batches and a small `k`).

    0 means that all neighbours of any cell are of one batch; 1 means that neighbours are as mixed
    as random cells. Neighbourhoods more even than that count as 1. Cell types that some batches
    lack keep the score below 1 in any latent space.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    batch
        Batch of each cell [cells].
    k
        Neighbours of a cell, at least 2.

    Returns
    -------
    Ratio from 0 to 1.

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a cell has no batch, there is only one batch, or `k` does
        not fit the number of cells.
    """
    points = check_latent(latent)
    codes = category_codes(batch, len(points), "batch")
    check_complete(codes, "a batch", "Leave the others out.")
    check_several(codes, "batch")
    if k < 2:
        raise InvalidOptionError(f"Expected k to be at least 2, to see a mixture; got {k}.")
    every = np.arange(len(points))
    around = codes[nearest_cells(points, k, every, every)]
    # With n_b of k neighbours in batch b, the entropy is log k - sum_b n_b log(n_b) / k.
    entropy = np.log(k) - np.log(count_votes(around)).mean()
    return float(np.clip(entropy / expected_entropy(np.bincount(codes), k), 0, 1))


def nearest_cells(
    points: NDArray[np.float64], k: int, sources: NDArray[np.int64], scored: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the `k` nearest source cells of each scored cell other than itself, [scored, k].

    Raises
    ------
    InvalidOptionError
        If there are fewer than `k` such cells.
    """
    return find_neighbours(points, k, sources, scored).cells


def find_neighbours(
    points: NDArray[np.float64], k: int, sources: NDArray[np.int64], scored: NDArray[np.int64]
) -> Neighbours:
    """Nearest `k` source cells of each scored cell other than itself.

    Which of several cells at exactly the same distance are chosen is undefined.

    Raises
    ------
    InvalidOptionError
        If there are fewer than `k` such cells.
    """
    from sklearn.neighbors import NearestNeighbors

    shared = bool(np.isin(scored, sources).any())
    others = len(sources) - shared
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= others:
        raise InvalidOptionError(
            f"Expected k to be a whole number from 1 to {others:,}, the number of other cells; "
            f"got {k!r}."
        )
    search = NearestNeighbors(n_neighbors=int(k) + shared).fit(points[sources])
    distances, positions = search.kneighbors(points[scored])
    cells = sources[positions]
    if not shared:
        return Neighbours(cells, distances)
    # The cell itself is dropped; or the farthest, if it is not found among its duplicates.
    drop = cells == scored[:, None]
    drop[~drop.any(axis=1), -1] = True
    shape = (len(scored), int(k))
    return Neighbours(cells[~drop].reshape(shape), distances[~drop].reshape(shape))


def count_votes(around: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of neighbours of a cell with the category of each of them, [cells, k]."""
    votes = np.zeros_like(around)
    for column in around.T:
        votes += around == column[:, None]
    return votes


def expected_entropy(sizes: NDArray[np.int64], k: int) -> float:
    """Expected entropy of the batches of `k` random cells other than one cell, in nats.

    The number of drawn cells of one batch is hypergeometric; the expectation is exact, and averaged
    over the cell that is left out.
    """
    n_others = int(sizes.sum()) - 1
    drawn = np.arange(1, k + 1)[:, None]

    def expected_sum(size: NDArray[np.int64]) -> NDArray[np.float64]:
        ways = log_binomial(size, drawn) + log_binomial(n_others - size, k - drawn)
        probability = np.exp(ways - log_binomial(np.array(n_others), np.array(k)))
        return (probability * drawn * np.log(drawn)).sum(axis=0)

    full, reduced = expected_sum(sizes), expected_sum(sizes - 1)
    mean = full.sum() + np.sum(sizes / sizes.sum() * (reduced - full))
    return float(np.log(k) - mean / k)


def log_binomial(n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of the binomial coefficient, minus infinity if `k` is not between 0 and `n`."""
    from scipy.special import gammaln

    possible = (k >= 0) & (k <= n)
    rest = np.where(possible, n - k, 0)
    return np.where(possible, gammaln(n + 1) - gammaln(k + 1) - gammaln(rest + 1), -np.inf)
