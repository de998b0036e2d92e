"""LISI: how many batches or labels there are around a cell, in effect."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_several
from cellvae.evaluation.neighbours import find_neighbours

N_NEIGHBOURS = 90
"""Neighbours that the score looks at, the cell itself counted; the perplexity is a third of them.

So it is in the authors' own package and in scib-metrics, from whose version 0.5 on the cell itself
has no weight; in 0.4 and before it had one.
"""
N_ROUNDS = 60
"""Rounds of the search for the width of a neighbourhood; a handful is usual."""


def ilisi(latent: ArrayLike, batch: ArrayLike, *, k: int = N_NEIGHBOURS) -> float:
    """How well batches are mixed: the effective number of batches around a cell, scaled.

    The median m over cells of :func:`lisi_from_neighbours` with batches becomes (m - 1) / (B -
    1) for B batches.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    batch
        Batch of each cell [cells].
    k
        Neighbours of a cell, itself counted, at least 3; all where there are fewer cells.

    Returns
    -------
    Score from 0 (one batch around the typical cell) to 1 (all, evenly).

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no batch, or there is only one batch.

    References
    ----------
    Korsunsky et al. (2019): Fast, sensitive and accurate integration of single-cell data with
    Harmony. Nature Methods 16, 1289.
    """
    median, n_batches = median_lisi(latent, batch, k, "batch")
    return scale_lisi(median, n_batches)


def clisi(latent: ArrayLike, labels: ArrayLike, *, k: int = N_NEIGHBOURS) -> float:
    """How well labels stay apart: the effective number of labels around a cell, scaled.

    The median m over cells of :func:`lisi_from_neighbours` with labels becomes (L - m) / (L - 1)
    for L labels.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell, itself counted, at least 3; all where there are fewer cells.

    Returns
    -------
    Score from 0 (all labels around the typical cell, evenly) to 1 (one).

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no label, or there is only one label.
    """
    median, n_labels = median_lisi(latent, labels, k, "labels")
    return 1 - scale_lisi(median, n_labels)


def scale_lisi(median: float, n_categories: int) -> float:
    """Median of an effective number of categories on a scale from 0 for one to 1 for all."""
    return (median - 1) / (n_categories - 1)


def median_lisi(latent: ArrayLike, categories: ArrayLike, k: int, what: str) -> tuple[float, int]:
    """Median over cells of their effective number of categories, and how many there are."""
    points = check_latent(latent)
    codes = category_codes(categories, len(points), what)
    check_complete(codes, f"a value of {what}", "Leave the others out.")
    check_several(codes, what)
    if k < 3:
        raise InvalidOptionError(f"Expected k to be at least 3, to see a mixture; got {k}.")
    every = np.arange(len(points))
    around = find_neighbours(points, min(k, len(points)) - 1, every, every)
    return float(np.median(lisi_from_neighbours(around.distances, codes[around.cells]))), int(
        codes.max()
    ) + 1


def lisi_from_neighbours(
    distances: NDArray[np.float64], around: NDArray[np.int64], perplexity: float | None = None
) -> NDArray[np.float64]:
    """Effective number of categories around each cell, [cells]: inverse of Simpson's index.

    A neighbour at distance d has a weight proportional to exp(-d / width); the width is that at
    which the weights have the entropy of `perplexity` equal ones.

    Parameters
    ----------
    distances
        Distances of the neighbours other than the cell itself [cells, k].
    around
        Their categories, numbered from 0 [cells, k].
    perplexity
        Effective number of neighbours; None for a third of k + 1, rounded down.
    """
    n_cells, k = distances.shape
    weights = perplexity_weights(distances, (k + 1) // 3 if perplexity is None else perplexity)
    n_categories = int(around.max()) + 1
    where = np.arange(n_cells)[:, None] * n_categories + around
    shares = np.bincount(where.ravel(), weights.ravel(), n_cells * n_categories)
    return 1 / np.square(shares.reshape(n_cells, n_categories)).sum(axis=1)


def perplexity_weights(distances: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Weights of the neighbours of each cell that sum to 1 and have a perplexity, [cells, k].

    Newton's method in the logarithm of the rate, halving where a step would leave the bracket.
    Where more neighbours than the perplexity are equally near, these share the weight.
    """
    apart = distances - distances.min(axis=1, keepdims=True)
    mean = apart.mean(axis=1, keepdims=True)
    apart = np.divide(apart, mean, out=np.zeros_like(apart), where=mean > 0)
    target = np.log(max(perplexity, 1.0))
    low, high = np.full(len(apart), -20.0), np.full(len(apart), 20.0)
    log_rate = np.zeros(len(apart))
    for _ in range(N_ROUNDS):
        weights = np.exp(-np.exp(log_rate)[:, None] * apart)
        total = weights.sum(axis=1)
        weights /= total[:, None]
        near = np.einsum("ij,ij->i", weights, apart)
        spread = np.einsum("ij,ij,ij->i", weights, apart, apart) - near**2
        rate = np.exp(log_rate)
        excess = np.log(total) + rate * near - target
        if np.all((np.abs(excess) < 1e-7) | (high - low < 1e-9)):
            break
        low, high = np.where(excess > 0, log_rate, low), np.where(excess > 0, high, log_rate)
        slope = np.maximum(rate**2 * spread, 1e-300)
        step = log_rate + excess / slope
        log_rate = np.where((step > low) & (step < high), step, (low + high) / 2)
    return weights
