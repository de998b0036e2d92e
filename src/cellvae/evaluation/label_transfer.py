"""Label transfer: prediction of labels from the nearest cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_positions
from cellvae.evaluation.neighbours import count_votes, nearest_cells


class LabelTransfer(NamedTuple):
    """Scores of labels predicted by the majority of the nearest cells."""

    accuracy: float
    """Fraction of cells whose label is predicted correctly."""
    f1: float
    """Mean over labels of the harmonic mean of precision and recall."""


def knn_f1(
    latent: ArrayLike,
    labels: ArrayLike,
    *,
    k: int = 15,
    train: ArrayLike | None = None,
    test: ArrayLike | None = None,
) -> float:
    """Macro F1 score of labels predicted by the majority of the nearest neighbours.

    The F1 score of a label is the harmonic mean of its precision and recall. The mean is over the
    labels of scored cells, so that rare labels count as much as common ones. Neighbours and ties
    are as in :func:`~cellvae.evaluation.knn_accuracy`: if m labels are equally common, each is
    predicted with weight 1/m.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell.
    train
        Cells among which neighbours are searched, as indices or a boolean mask; None for all.
    test
        Cells that are scored, as indices or a boolean mask; None for all.

    Returns
    -------
    Mean from 0 to 1.

    Raises
    ------
    InvalidOptionError
        If shapes of arrays do not match, a chosen cell has no label, or there are fewer than `k`
        other cells.
    """
    points = check_latent(latent)
    codes = category_codes(labels, len(points), "labels")
    sources = check_positions(train, len(points), "train")
    scored = check_positions(test, len(points), "test")
    check_complete(
        codes[np.union1d(sources, scored)],
        "a label",
        "Name those that have one: train=labelled, test=labelled.",
    )
    return label_transfer(codes[nearest_cells(points, k, sources, scored)], codes[scored]).f1


def label_transfer(around: NDArray[np.int64], own: NDArray[np.int64]) -> LabelTransfer:
    """Scores from the labels of the neighbours of each cell [cells, k] and its own [cells]."""
    votes = count_votes(around)
    is_majority = votes == votes.max(axis=1)[:, None]
    weights = is_majority / is_majority.sum(axis=1)[:, None]
    n_labels = int(max(around.max(), own.max())) + 1
    is_own = around == own[:, None]
    hits = np.bincount(own, (weights * is_own).sum(axis=1), n_labels)
    predicted = np.bincount(around.ravel(), weights.ravel(), n_labels)
    true = np.bincount(own, minlength=n_labels)
    present = true > 0
    f1 = 2 * hits[present] / (predicted[present] + true[present])
    return LabelTransfer(
        accuracy=min(1.0, float(hits.sum() / len(own))), f1=min(1.0, float(f1.mean()))
    )
