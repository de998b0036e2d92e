"""Scores of scib-metrics, written to `scib_<version>.npz`.

Run by hand once for each version, in an environment with scib-metrics==0.5.1, and in one with
scib-metrics==0.6.1 (Python 3.12): `python tests/parity/write_scib.py 0.6.1`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd

if not hasattr(pd, "value_counts"):  # which version 0.5 asks for
    pd.value_counts = lambda values: pd.Series(values).value_counts()
# Scores are compared to more digits than single precision has.
jax.config.update("jax_enable_x64", True)

import scib_metrics  # noqa: E402
from scib_metrics.nearest_neighbors import NeighborsResults  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402

N_CELLS = 400


def main(version: str) -> None:
    random = np.random.default_rng(0)
    labels, batch = (
        random.choice(4, N_CELLS, p=[0.4, 0.3, 0.2, 0.1]),
        random.integers(0, 3, N_CELLS),
    )
    batch[labels == 3] = 0
    latent = random.normal(size=(N_CELLS, 5)) + 2 * np.eye(5)[labels]
    latent += 0.8 * np.eye(5)[[4, 3, 2]][batch]
    distances, indices = NearestNeighbors(n_neighbors=90).fit(latent).kneighbors(latent)
    assert (indices[:, 0] == np.arange(N_CELLS)).all()
    many = NeighborsResults(indices=indices, distances=distances)
    few = NeighborsResults(indices=indices[:, :15], distances=distances[:, :15])
    found = {
        "latent": latent,
        "batch": batch,
        "labels": labels,
        "lisi of batches": scib_metrics.lisi_knn(many, batch),
        "lisi of labels": scib_metrics.lisi_knn(many, labels),
        "ilisi": scib_metrics.ilisi_knn(many, batch),
        "clisi": scib_metrics.clisi_knn(many, labels),
        "asw_batch": scib_metrics.silhouette_batch(latent, labels, batch),
        "asw_label": scib_metrics.silhouette_label(latent, labels),
        "isolated_labels": scib_metrics.isolated_labels(latent, labels, batch),
        "graph_connectivity": scib_metrics.graph_connectivity(few, labels),
    }
    if hasattr(scib_metrics, "bras"):
        found["bras"] = scib_metrics.bras(latent, labels, batch)
        for metric in ("cosine", "euclidean"):
            for between in ("mean_other", "furthest"):
                found[f"bras {metric} {between}"] = scib_metrics.bras(
                    latent, labels, batch, metric=metric, between_cluster_distances=between
                )
    arrays = {name: np.asarray(values) for name, values in found.items()}
    np.savez_compressed(Path(__file__).with_name(f"scib_{version}.npz"), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
