"""All scores of one latent space, from one nearest-neighbour search."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.evaluation.inputs import (
    category_codes,
    check_complete,
    check_latent,
    check_positions,
    check_several,
)
from cellvae.evaluation.integration.clusters import compare_clusterings, kmeans_clusters
from cellvae.evaluation.integration.connectivity import connectivity_from_neighbours
from cellvae.evaluation.integration.lisi import N_NEIGHBOURS, lisi_from_neighbours, scale_lisi
from cellvae.evaluation.integration.pcr import unexplained_fraction
from cellvae.evaluation.integration.scib import scib_metrics, scib_scores
from cellvae.evaluation.integration.silhouette import batch_overlap, isolation, silhouette_widths
from cellvae.evaluation.label_transfer import label_transfer
from cellvae.evaluation.neighbours import Neighbours, find_neighbours, nearest_cells

PANEL = (
    *("knn_label_accuracy", "knn_label_f1", "ilisi", "asw_batch", "bras", "asw_label"),
    *("nmi", "ari", "graph_connectivity", "pcr"),
)
"""Default scores."""
REQUIRED_COLUMNS: MappingProxyType[str, frozenset[str]] = MappingProxyType(
    dict.fromkeys(("ilisi", "asw_batch", "bras", "pcr"), frozenset({"batch"}))
    | dict.fromkeys(
        ("knn_label_accuracy", "knn_label_f1", "asw_label", "nmi", "ari", "clisi"),
        frozenset({"labels"}),
    )
    | dict.fromkeys(("isolated_labels", "scib"), frozenset({"batch", "labels"}))
    | {"graph_connectivity": frozenset({"labels"})}
)
"""Columns that each score needs beside the latent space."""


def panel_score_names(metrics: Sequence[str]) -> list[str]:
    """Names of the resulting scores; `"scib"` stands for all scores of scib-metrics.

    Raises
    ------
    InvalidOptionError
        If there is no such score, or it needs a package that is not installed.
    """
    for name in metrics:
        if name not in REQUIRED_COLUMNS:
            raise InvalidOptionError(
                f"Expected metrics among {', '.join(REQUIRED_COLUMNS)}; got '{name}'."
                f"{did_you_mean(str(name), REQUIRED_COLUMNS)}"
            )
    scib = [f"scib_{name}" for name in scib_metrics()] if "scib" in metrics else []
    return [n for name in metrics for n in (scib if name == "scib" else [name])]


def integration_scores(
    latent: ArrayLike,
    batch: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    *,
    metrics: Sequence[str] | None = None,
    k: int = 15,
    train: ArrayLike | None = None,
    test: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Scores of how well a latent space mixes batches and separates labels.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    batch, labels
        Batch and label of each cell [cells]; None if there are none.
    metrics
        Names of scores; None for those of :data:`PANEL` for which `batch` and `labels` are given.
    k
        Neighbours for label transfer and the graph; LISI uses 90, including the cell itself.
    train, test
        Cells with known labels, and cells whose labels are predicted; None for all, with each cell
        left out in turn.
    seed
        Seed of the clusters.

    Returns
    -------
    Scores by name; higher is better for all.

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match or do not fit a score, or if there is no such score.
    """
    given = {name for name, x in (("batch", batch), ("labels", labels)) if x is not None}
    chosen = (
        [m for m in PANEL if given >= REQUIRED_COLUMNS[m]] if metrics is None else list(metrics)
    )
    names = panel_score_names(chosen)
    for name in chosen:
        if not given >= REQUIRED_COLUMNS[name]:
            raise InvalidOptionError(
                f"Expected {' and '.join(sorted(REQUIRED_COLUMNS[name]))} for '{name}'; got none. "
                "Give it, or leave the score out."
            )
    points = check_latent(latent)
    codes = {}
    for what, values in (("batch", batch), ("labels", labels)):
        if values is not None:
            codes[what] = category_codes(values, len(points), what)
            check_complete(codes[what], f"a value of {what}", "Leave the others out.")
            if any(what in REQUIRED_COLUMNS[name] for name in chosen):
                check_several(codes[what], what)
    found = IntegrationScores(points, codes.get("batch"), codes.get("labels"), k, seed).compute(
        chosen,
        None if train is None else check_positions(train, len(points), "train"),
        None if test is None else check_positions(test, len(points), "test"),
    )
    return {name: found[name] for name in names}


class IntegrationScores:
    """Scores of checked arrays that share a nearest-neighbour search.

    Parameters
    ----------
    points
        Positions of the cells [cells, latent].
    batch, labels
        Codes of batch and label of each cell [cells].
    k
        Neighbours for label transfer and the graph.
    seed
        Seed of the clusters.
    """

    def __init__(
        self,
        points: NDArray[np.float64],
        batch: NDArray[np.int64] | None,
        labels: NDArray[np.int64] | None,
        k: int,
        seed: int,
    ) -> None:
        self.points = points
        self.batch = np.zeros(len(points), dtype=np.int64) if batch is None else batch
        self.labels = np.zeros(len(points), dtype=np.int64) if labels is None else labels
        self.k = k
        self.seed = seed
        self.all_neighbours: Neighbours | None = None

    def neighbours(self, k: int) -> Neighbours:
        """Nearest `k` other cells of every cell, from one search for all scores."""
        if self.all_neighbours is None:
            every = np.arange(len(self.points))
            k_max = max(self.k, min(N_NEIGHBOURS, len(self.points)) - 1)
            self.all_neighbours = find_neighbours(self.points, k_max, every, every)
        return Neighbours(self.all_neighbours.cells[:, :k], self.all_neighbours.distances[:, :k])

    def compute(
        self,
        metrics: Sequence[str],
        train: NDArray[np.int64] | None,
        test: NDArray[np.int64] | None,
    ) -> dict[str, float]:
        """Scores by name, including those that are computed together with a requested one."""
        requested = set(metrics)
        scores: dict[str, float] = {}
        if requested & {"knn_label_accuracy", "knn_label_f1"}:
            scores["knn_label_accuracy"], scores["knn_label_f1"] = self.transfer(train, test)
        for name, codes in (("ilisi", self.batch), ("clisi", self.labels)):
            if name in requested:
                around = self.neighbours(N_NEIGHBOURS - 1)
                median = np.median(lisi_from_neighbours(around.distances, codes[around.cells]))
                score = scale_lisi(float(median), int(codes.max()) + 1)
                scores[name] = score if name == "ilisi" else 1 - score
        if "asw_batch" in requested:
            scores["asw_batch"] = batch_overlap(self.points, self.batch, self.labels)
        if "bras" in requested:
            scores["bras"] = batch_overlap(
                self.points, self.batch, self.labels, "cosine", "mean_other"
            )
        if "asw_label" in requested:
            scores["asw_label"] = float(
                (silhouette_widths(self.points, self.labels).mean() + 1) / 2
            )
        if "isolated_labels" in requested:
            scores["isolated_labels"] = isolation(self.points, self.batch, self.labels)
        if requested & {"nmi", "ari"}:
            groups = kmeans_clusters(self.points, int(self.labels.max()) + 1, self.seed)
            scores["nmi"], scores["ari"] = compare_clusterings(self.labels, groups)
        if "graph_connectivity" in requested:
            scores["graph_connectivity"] = connectivity_from_neighbours(
                self.neighbours(self.k).cells, self.labels
            )
        if "pcr" in requested:
            scores["pcr"] = unexplained_fraction(self.points, self.batch)
        if "scib" in requested:
            scores |= scib_scores(
                self.points, self.batch, self.labels, self.neighbours(N_NEIGHBOURS - 1)
            )
        return scores

    def transfer(
        self, train: NDArray[np.int64] | None, test: NDArray[np.int64] | None
    ) -> tuple[float, float]:
        """Accuracy and F1 score of labels predicted from the nearest cells."""
        if train is None and test is None:
            return label_transfer(self.labels[self.neighbours(self.k).cells], self.labels)
        every = np.arange(len(self.points))
        sources, scored = (every if cells is None else cells for cells in (train, test))
        around = nearest_cells(self.points, self.k, sources, scored)
        return label_transfer(self.labels[around], self.labels[scored])
