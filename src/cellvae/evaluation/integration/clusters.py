"""Whether clusters of cells are their labels."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_several


class ClusterAgreement(NamedTuple):
    """How far clusters agree with labels."""

    nmi: float
    """Mutual information next to the mean entropy of the two, from 0 to 1."""
    ari: float
    """Rand index adjusted for chance: 0 for clusters drawn at random, 1 for the labels."""


def cluster_agreement(latent: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> ClusterAgreement:
    """How far k-means clusters, as many as there are labels, agree with the labels.

    One seed gives the same clusters every time: the best of three starts of scikit-learn's k-means.
    Scores from Leiden clusters at the best of many resolutions, which other benchmarks use, are
    higher as a rule; compare like with like.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    seed
        Seed of the starts.

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a cell has no label, or there is only one label.
    """
    points = check_latent(latent)
    codes = category_codes(labels, len(points), "labels")
    check_complete(codes, "a label", "Leave the others out.")
    check_several(codes, "labels")
    return compare_clusterings(codes, kmeans_clusters(points, int(codes.max()) + 1, seed))


def kmeans_clusters(points: NDArray[np.float64], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """K-means cluster of each cell, numbered from 0."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different points than clusters: some clusters stay empty, which is no error here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(points)
    return found.astype(np.int64)


def compare_clusterings(labels: NDArray[np.int64], found: NDArray[np.int64]) -> ClusterAgreement:
    """Agreement of two ways to group the same cells."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return ClusterAgreement(
        nmi=float(normalized_mutual_info_score(labels, found)),
        ari=float(adjusted_rand_score(labels, found)),
    )
