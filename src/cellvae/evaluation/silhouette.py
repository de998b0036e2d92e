"""Silhouette: how far apart groups of cells are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.inputs import check_complete, check_several, codes_of, points_of


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
    from sklearn.metrics import silhouette_score

    points = points_of(latent)
    codes = codes_of(labels, len(points), "labels")
    check_complete(codes, "a label", "Leave the others out.")
    check_several(codes, "labels")
    if len(np.unique(codes)) == len(points):
        raise InvalidOptionError(
            f"Expected fewer groups than cells; got {len(points):,} of each. Give labels of groups."
        )
    return float(silhouette_score(points, codes))
