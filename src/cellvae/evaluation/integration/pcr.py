"""Principal component regression: variance of the latent space explained by the batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_several


def pcr(latent: ArrayLike, batch: ArrayLike) -> float:
    """Fraction of the variance of the latent space that the batch does not explain.

    Principal component regression explains each principal component by the batch, weighted by the
    variance of the component. For a categorical batch, the sum over all components is invariant to
    rotation: it is the variance between batches divided by the total variance, and needs no
    components. The score is 1 minus that fraction, so that higher is better mixed. It describes one
    latent space; comparisons before and after integration divide two such fractions.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent].
    batch
        Batch of each cell [cells].

    Returns
    -------
    Fraction from 0 (all cells of a batch at one point) to 1 (batches with the same mean).

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a cell has no batch, or there is only one batch.
    """
    points = check_latent(latent)
    codes = category_codes(batch, len(points), "batch")
    check_complete(codes, "a batch", "Leave the others out.")
    check_several(codes, "batch")
    return unexplained_fraction(points, codes)


def unexplained_fraction(points: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Fraction of the variance within groups; 1 if there is no variance."""
    centred = points - points.mean(axis=0)
    total = np.square(centred).sum()
    if total == 0:
        return 1.0
    sizes = np.bincount(codes)
    sums = np.stack([np.bincount(codes, column) for column in centred.T], axis=1)
    between = (np.square(sums).sum(axis=1) / np.maximum(sizes, 1)).sum()
    return float(1 - between / total)
