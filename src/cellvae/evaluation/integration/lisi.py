"""LISI: effective number of batches or labels in the neighbourhood of each cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_several
from cellvae.evaluation.neighbours import find_neighbours

N_NEIGHBOURS = 90
"""Neighbours of a cell, including itself; the perplexity is a third of them.

As in the package of the authors and in scib-metrics. Since scib-metrics 0.5 the cell itself has no
weight, as here.
"""
MAX_ITERATIONS = 60
"""Maximum number of iterations of the search for the kernel width; a few are usual."""


def ilisi(latent: ArrayLike, batch: ArrayLike, *, k: int = N_NEIGHBOURS) -> float:
    """Batch mixing: effective number of batches around a cell, scaled to 0..1.

    The median m over cells of :func:`lisi_from_neighbours` with batches becomes (m - 1) / (B -
    1) for B batches.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    batch
        Batch of each cell [cells].
    k
        Neighbours of a cell, including itself, at least 3; all cells if there are fewer.

    Returns
    -------
    Score from 0 (one batch around the median cell) to 1 (all batches in equal proportions).

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a cell has no batch, or there is only one batch.

    References
    ----------
    Korsunsky et al. (2019): Fast, sensitive and accurate integration of single-cell data with
    Harmony. Nature Methods 16, 1289.
    """
    median, n_batches = median_lisi(latent, batch, k, "batch")
    return scale_lisi(median, n_batches)


def clisi(latent: ArrayLike, labels: ArrayLike, *, k: int = N_NEIGHBOURS) -> float:
    """Label separation: effective number of labels around a cell, scaled to 0..1.

    The median m over cells of :func:`lisi_from_neighbours` with labels becomes (L - m) / (L - 1)
    for L labels.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell, including itself, at least 3; all cells if there are fewer.

    Returns
    -------
    Score from 0 (all labels around the median cell in equal proportions) to 1 (one label).

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a cell has no label, or there is only one label.
    """
    median, n_labels = median_lisi(latent, labels, k, "labels")
    return 1 - scale_lisi(median, n_labels)


def scale_lisi(median: float, n_categories: int) -> float:
    """Median effective number of categories, scaled from 0 for one to 1 for all."""
    return (median - 1) / (n_categories - 1)


def median_lisi(latent: ArrayLike, categories: ArrayLike, k: int, what: str) -> tuple[float, int]:
    """Median over cells of the effective number of categories, and the number of categories."""
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
    """Effective number of categories around each cell, [cells]: inverse Simpson index.

    A neighbour at distance d has a weight proportional to exp(-d / width), with the width for which
    the weights have the entropy of `perplexity` equal weights.

    Parameters
    ----------
    distances
        Distances of the neighbours other than the cell itself [cells, k].
    around
        Codes of their categories, from 0 [cells, k].
    perplexity
        Effective number of neighbours; None for a third of k + 1, rounded down.
    """
    n_cells, k = distances.shape
    weights = perplexity_weights(distances, (k + 1) // 3 if perplexity is None else perplexity)
    n_categories = int(around.max()) + 1
    flat = np.arange(n_cells)[:, None] * n_categories + around
    proportions = np.bincount(flat.ravel(), weights.ravel(), n_cells * n_categories)
    return 1 / np.square(proportions.reshape(n_cells, n_categories)).sum(axis=1)


def perplexity_weights(distances: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Weights of the neighbours of each cell, [cells, k], with sum 1 and a given perplexity.

    Newton's method in the logarithm of the rate, with bisection if a step leaves the bracket. If
    more neighbours than the perplexity are equally near, they share the weight.
    """
    excess_distance = distances - distances.min(axis=1, keepdims=True)
    mean = excess_distance.mean(axis=1, keepdims=True)
    excess_distance = np.divide(
        excess_distance, mean, out=np.zeros_like(excess_distance), where=mean > 0
    )
    target = np.log(max(perplexity, 1.0))
    low, high = np.full(len(excess_distance), -20.0), np.full(len(excess_distance), 20.0)
    log_rate = np.zeros(len(excess_distance))
    for _ in range(MAX_ITERATIONS):
        weights = np.exp(-np.exp(log_rate)[:, None] * excess_distance)
        total = weights.sum(axis=1)
        weights /= total[:, None]
        mean_distance = np.einsum("ij,ij->i", weights, excess_distance)
        variance = (
            np.einsum("ij,ij,ij->i", weights, excess_distance, excess_distance) - mean_distance**2
        )
        rate = np.exp(log_rate)
        excess = np.log(total) + rate * mean_distance - target
        if np.all((np.abs(excess) < 1e-7) | (high - low < 1e-9)):
            break
        low, high = np.where(excess > 0, log_rate, low), np.where(excess > 0, high, log_rate)
        slope = np.maximum(rate**2 * variance, 1e-300)
        step = log_rate + excess / slope
        log_rate = np.where((step > low) & (step < high), step, (low + high) / 2)
    return weights
