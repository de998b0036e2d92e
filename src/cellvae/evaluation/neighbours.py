"""Scores of who a cell's nearest neighbours are."""

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
    """Their numbers, [cells, k]."""
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
    """Share of cells whose label is the commonest among their nearest neighbours.

    A cell is never its own neighbour, so that by default each cell is left out in turn. Where m
    labels are equally common, a cell with one of them counts as 1/m: what a fair draw would give.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell.
    train
        Cells that neighbours are taken from, as numbers or truths; None for all.
    test
        Cells that are scored, as numbers or truths; None for all.

    Returns
    -------
    Share from 0 to 1.

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a chosen cell has no label, or there are fewer than `k`
        neighbours to choose from.
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
    """How well batches are mixed: entropy of the batches around a cell, next to that of chance.

    The entropy of the batches among the `k` nearest other cells, averaged over cells, is divided
    by the average that `k` other cells drawn at random would have (without replacement, so that
    unequal batches and a small `k` are allowed for).

    0 means that all neighbours of any cell are of one batch; 1 means that neighbours are as mixed
    as cells drawn at random. Neighbourhoods more even than chance count as 1. Cell types that not
    all batches have keep the score below 1 whatever the latent space.

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
        If arrays do not fit each other, a cell has no batch, there is only one batch, or `k` does
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
    """Numbers of the `k` nearest source cells of each scored cell other than itself, [scored, k].

    Raises
    ------
    InvalidOptionError
        If there are fewer than `k` of them.
    """
    return find_neighbours(points, k, sources, scored).cells


def find_neighbours(
    points: NDArray[np.float64], k: int, sources: NDArray[np.int64], scored: NDArray[np.int64]
) -> Neighbours:
    """Nearest `k` source cells of each scored cell other than itself.

    Which of several cells at exactly the same distance are taken is not defined.

    Raises
    ------
    InvalidOptionError
        If there are fewer than `k` of them.
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
    found = sources[positions]
    if not shared:
        return Neighbours(found, distances)
    # The cell itself goes; the farthest goes where the cell is not found among its duplicates.
    drop = found == scored[:, None]
    drop[~drop.any(axis=1), -1] = True
    shape = (len(scored), int(k))
    return Neighbours(found[~drop].reshape(shape), distances[~drop].reshape(shape))


def count_votes(around: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many neighbours of a cell share the category of each of them, [cells, k]."""
    votes = np.zeros_like(around)
    for column in around.T:
        votes += around == column[:, None]
    return votes


def expected_entropy(sizes: NDArray[np.int64], k: int) -> float:
    """Mean entropy of the batches of `k` cells drawn from all cells but one, in nats.

    The number of cells of one batch among those drawn is hypergeometric; the expectation is
    exact, averaged over the cell that is left out.
    """
    n_others = int(sizes.sum()) - 1
    drawn = np.arange(1, k + 1)[:, None]

    def expected(size: NDArray[np.int64]) -> NDArray[np.float64]:
        ways = log_binomial(size, drawn) + log_binomial(n_others - size, k - drawn)
        chance = np.exp(ways - log_binomial(np.array(n_others), np.array(k)))
        return (chance * drawn * np.log(drawn)).sum(axis=0)

    whole, reduced = expected(sizes), expected(sizes - 1)
    mean = whole.sum() + np.sum(sizes / sizes.sum() * (reduced - whole))
    return float(np.log(k) - mean / k)


def log_binomial(n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of the number of ways to choose `k` of `n`, minus infinity where there is none."""
    from scipy.special import gammaln

    possible = (k >= 0) & (k <= n)
    left = np.where(possible, n - k, 0)
    return np.where(possible, gammaln(n + 1) - gammaln(k + 1) - gammaln(left + 1), -np.inf)
