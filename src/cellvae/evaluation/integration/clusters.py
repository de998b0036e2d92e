"""Agreement of k-means clusters of the latent space with labels."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_several


class ClusterAgreement(NamedTuple):
    """Agreement of clusters with labels."""

    nmi: float
    """Normalized mutual information: divided by the mean entropy of both, from 0 to 1."""
    ari: float
    """Rand index adjusted for chance: 0 for random clusters, 1 for the labels."""


def cluster_agreement(latent: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> ClusterAgreement:
    """Agreement of k-means clusters, as many as there are labels, with the labels.

    Clusters are the best of three runs of scikit-learn's k-means, and reproducible by the seed.
    Other benchmarks use Leiden clusters at the best of many resolutions, which usually have higher
    scores; do not compare the two.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    seed
        Seed of k-means.

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a cell has no label, or there is only one label.
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
        # With fewer distinct points than clusters, some clusters stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(points)
    return clusters.astype(np.int64)


def compare_clusterings(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> ClusterAgreement:
    """Agreement of two groupings of the same cells."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return ClusterAgreement(
        nmi=float(normalized_mutual_info_score(labels, clusters)),
        ari=float(adjusted_rand_score(labels, clusters)),
    )
