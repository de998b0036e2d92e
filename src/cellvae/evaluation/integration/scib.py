"""Scores of the package scib-metrics, if it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError

BIO_CONSERVATION = ("isolated_labels", "nmi", "ari", "silhouette_label", "clisi")
SCIB_N_NEIGHBOURS = (15, 50, 90)
"""Neighbours for graph connectivity, kBET and LISI, the defaults of scib-metrics."""


def scib_metrics() -> tuple[str, ...]:
    """Names of the scores, without the prefix `scib_`.

    Since version 0.5.5, `bras` replaces `silhouette_batch`.

    Raises
    ------
    InvalidOptionError
        If the package is not installed.
    """
    batch_score = "bras" if hasattr(load_scib(), "bras") else "silhouette_batch"
    return (*BIO_CONSERVATION, batch_score, "ilisi", "kbet", "graph_connectivity")


def scib_version() -> str:
    """Installed version of scib-metrics, or `"unknown"`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scib-metrics")
    except PackageNotFoundError:
        return "unknown"


def load_scib() -> Any:
    """The package scib-metrics.

    Raises
    ------
    InvalidOptionError
        If it is not installed.
    """
    try:
        import scib_metrics  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise InvalidOptionError(
            "Expected the package scib-metrics for the panel 'scib'; it is not installed. "
            'Install it with: pip install "cellvae[scib]". Or name metrics that need nothing more, '
            "such as 'ilisi'."
        ) from error
    return scib_metrics


def scib_scores(
    points: NDArray[np.float64],
    batch: NDArray[np.int64],
    labels: NDArray[np.int64],
    neighbours: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> dict[str, float]:
    """Scores of scib-metrics by name, `scib_nmi` and so on.

    Parameters
    ----------
    points
        Positions of the cells [cells, latent].
    batch, labels
        Batch and label of each cell [cells].
    neighbours
        Indices and distances of the nearest other cells [cells, k].

    Raises
    ------
    InvalidOptionError
        If the package is not installed.
    """
    scib = load_scib()
    from scib_metrics.nearest_neighbors import (  # type: ignore[import-not-found, unused-ignore]
        NeighborsResults,
    )

    # scib-metrics counts a cell as its own first neighbour.
    itself = np.arange(len(points))[:, None]
    cells = np.concatenate([itself, neighbours[0]], axis=1)
    distances = np.concatenate([np.zeros(itself.shape), neighbours[1]], axis=1)
    few, some, many = (
        NeighborsResults(indices=cells[:, :k], distances=distances[:, :k])
        for k in SCIB_N_NEIGHBOURS
    )
    agreement = scib.nmi_ari_cluster_labels_kmeans(points, labels)
    names = scib_metrics()
    batch_score = names[len(BIO_CONSERVATION)]
    found = {
        "isolated_labels": scib.isolated_labels(points, labels, batch),
        "nmi": agreement["nmi"],
        "ari": agreement["ari"],
        "silhouette_label": scib.silhouette_label(points, labels),
        "clisi": scib.clisi_knn(many, labels),
        batch_score: getattr(scib, batch_score)(points, labels, batch),
        "ilisi": scib.ilisi_knn(many, batch),
        "kbet": kbet_score(scib.kbet_per_label(some, batch, labels)),
        "graph_connectivity": scib.graph_connectivity(few, labels),
    }
    return {f"scib_{name}": float(found[name]) for name in names}


def kbet_score(result: Any) -> float:
    """Score of kBET, the first entry of a result with details of each label."""
    return float(result[0] if isinstance(result, tuple) else result)
