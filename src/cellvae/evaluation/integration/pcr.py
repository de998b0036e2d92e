"""How much of a latent space is explained by the batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_several


def pcr(latent: ArrayLike, batch: ArrayLike) -> float:
    """Share of the variance of the latent space that the batch does not explain.

    Principal component regression explains each principal component by the batch and weights it
    by its variance. For a categorical batch the sum over all components does not depend on how
    the axes lie: it is the variance between batches over the whole variance, and needs no
    components. The score is 1 minus that share, so that higher is better mixed. It is that of the
    latent space by itself; comparisons before and after integration divide two such shares.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent].
    batch
        Batch of each cell [cells].

    Returns
    -------
    Share from 0 (all cells of a batch at one point) to 1 (batches with the same mean).

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no batch, or there is only one batch.
    """
    points = check_latent(latent)
    codes = category_codes(batch, len(points), "batch")
    check_complete(codes, "a batch", "Leave the others out.")
    check_several(codes, "batch")
    return unexplained_fraction(points, codes)


def unexplained_fraction(points: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Share of the variance within groups; 1 where nothing varies."""
    centred = points - points.mean(axis=0)
    total = np.square(centred).sum()
    if total == 0:
        return 1.0
    sizes = np.bincount(codes)
    sums = np.stack([np.bincount(codes, column) for column in centred.T], axis=1)
    between = (np.square(sums).sum(axis=1) / np.maximum(sizes, 1)).sum()
    return float(1 - between / total)
