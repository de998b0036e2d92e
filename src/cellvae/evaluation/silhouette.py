"""Silhouette: how far apart groups of cells are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.inputs import check_complete, check_several, codes_of, points_of

CHUNK = 2**22
"""Distances that are held at a time."""


def silhouette(latent: ArrayLike, labels: ArrayLike) -> float:
    """Mean silhouette width of the cells, with labels as groups.

    A cell at mean distance a from the others of its group and b from those of the nearest other
    group has the width (b - a) / max(a, b); the only cell of a group has 0. Time grows with the
    square of the number of cells.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Group of each cell [cells].

    Returns
    -------
    Mean from -1 (cells among other groups) over 0 (groups that overlap) to 1 (tight groups far
    apart).

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no label, or there are not at least two groups
        and fewer groups than cells.

    References
    ----------
    Rousseeuw (1987): Silhouettes. Journal of Computational and Applied Mathematics 20, 53.
    """
    points = points_of(latent)
    codes = codes_of(labels, len(points), "labels")
    check_complete(codes, "a label", "Leave the others out.")
    check_several(codes, "labels")
    if len(np.unique(codes)) == len(points):
        raise InvalidOptionError(
            f"Expected fewer groups than cells; got {len(points):,} of each. Give labels of groups."
        )
    return float(widths(points, codes).mean())


def asw_label(latent: ArrayLike, labels: ArrayLike) -> float:
    """Mean silhouette width of labels, from -1..1 to 0..1: higher where labels are further apart.

    Raises
    ------
    InvalidOptionError
        As :func:`silhouette` does.
    """
    return (silhouette(latent, labels) + 1) / 2


def asw_batch(latent: ArrayLike, batch: ArrayLike, labels: ArrayLike | None = None) -> float:
    """How far batches overlap: 1 minus the absolute silhouette width with batches as groups.

    The mean is taken over the cells of each label, then over labels, so that batches with other
    shares of the labels are not held against the latent space. Labels that only one batch has,
    or whose cells are all of different batches, do not count.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    batch
        Batch of each cell [cells].
    labels
        Label of each cell [cells]; None for one label.

    Returns
    -------
    Mean from 0 (batches far apart) to 1 (batches that overlap); NaN where no label counts.

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no batch or label, or there is only one batch.
    """
    points = points_of(latent)
    codes = codes_of(batch, len(points), "batch")
    check_complete(codes, "a batch", "Leave the others out.")
    check_several(codes, "batch")
    of_label = np.zeros(len(points), dtype=np.int64)
    if labels is not None:
        of_label = codes_of(labels, len(points), "labels")
        check_complete(of_label, "a label", "Leave the others out.")
    return overlap(points, codes, of_label)


def overlap(
    points: NDArray[np.float64], batch: NDArray[np.int64], labels: NDArray[np.int64]
) -> float:
    """Mean over labels of the overlap of batches; NaN where no label has batches to compare."""
    means = []
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        if 1 < len(np.unique(batch[cells])) < len(cells):
            means.append(1 - np.abs(widths(points[cells], batch[cells])).mean())
    return float(np.mean(means)) if means else float("nan")


def widths(points: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Silhouette width of each cell, [cells]; the distances are never all held at once."""
    from scipy.spatial.distance import cdist

    _, groups = np.unique(codes, return_inverse=True)
    sizes = np.bincount(groups)
    member = np.eye(len(sizes))[groups]
    found = np.zeros(len(points))
    n_rows = max(1, CHUNK // len(points))
    for first in range(0, len(points), n_rows):
        rows = np.arange(first, min(first + n_rows, len(points)))
        sums = cdist(points[rows], points) @ member
        own = groups[rows]
        inner = np.take_along_axis(sums, own[:, None], axis=1)[:, 0] / np.maximum(sizes[own] - 1, 1)
        means = sums / sizes
        np.put_along_axis(means, own[:, None], np.inf, axis=1)
        outer = means.min(axis=1)
        larger = np.maximum(inner, outer)
        width = np.divide(outer - inner, larger, out=np.zeros_like(outer), where=larger > 0)
        found[rows] = np.where(sizes[own] > 1, width, 0.0)
    return found
