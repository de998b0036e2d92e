"""The panel of scib-metrics, with a package of the same shape in its place."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import integration_scores
from cellvae.evaluation.integration.scib import scib_metrics


@dataclass
class NeighborsResults:
    indices: np.ndarray
    distances: np.ndarray


def stand_in(**functions: object) -> tuple[ModuleType, ModuleType]:
    """Package whose scores tell how many neighbours they were given."""
    package, neighbours = ModuleType("scib_metrics"), ModuleType("scib_metrics.nearest_neighbors")
    vars(neighbours)["NeighborsResults"] = NeighborsResults

    def n_neighbours(x: NeighborsResults, *_: np.ndarray) -> float:
        assert (x.indices[:, 0] == np.arange(len(x.indices))).all()
        assert not x.distances[:, 0].any()
        assert (np.diff(x.distances, axis=1) >= 0).all()
        return float(x.indices.shape[1])

    vars(package).update(
        {
            "isolated_labels": lambda x, labels, batch: len(np.unique(labels)),
            "nmi_ari_cluster_labels_kmeans": lambda x, labels: {"nmi": 0.5, "ari": 0.25},
            "silhouette_label": lambda x, labels: x.shape[1],
            "clisi_knn": n_neighbours,
            "ilisi_knn": n_neighbours,
            "kbet_per_label": n_neighbours,
            "graph_connectivity": n_neighbours,
            "silhouette_batch": lambda x, labels, batch: len(np.unique(batch)),
        }
        | functions
    )
    return package, neighbours


@pytest.fixture
def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(120, 4)), np.arange(120) % 2, np.arange(120) % 3


@pytest.mark.parametrize("newer", [False, True])
def test_its_scores_come_by_name(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    kwargs = {"bras": lambda x, labels, batch: 7, "kbet_per_label": lambda *_: (0.5, "table")}
    package, neighbours = stand_in(**(kwargs if newer else {}))
    monkeypatch.setitem(sys.modules, "scib_metrics", package)
    monkeypatch.setitem(sys.modules, "scib_metrics.nearest_neighbors", neighbours)
    scores = integration_scores(*cells, metrics=["pcr", "scib"])
    assert list(scores) == ["pcr", *(f"scib_{name}" for name in scib_metrics())]
    assert scores | {"pcr": 0} == {
        "pcr": 0,
        "scib_isolated_labels": 3,
        "scib_nmi": 0.5,
        "scib_ari": 0.25,
        "scib_silhouette_label": 4,
        "scib_clisi": 90,
        **({"scib_bras": 7} if newer else {"scib_silhouette_batch": 2}),
        "scib_ilisi": 90,
        "scib_kbet": 0.5 if newer else 50,
        "scib_graph_connectivity": 15,
    }


def test_where_it_is_not_installed_the_error_says_how_to(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(InvalidOptionError, match=r'pip install "cellvae\[scib\]"'):
        integration_scores(*cells, metrics=["scib"])
