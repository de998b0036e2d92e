"""How well labels are read off the labels of the nearest cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellvae.evaluation.inputs import category_codes, check_complete, check_latent, check_positions
from cellvae.evaluation.neighbours import count_votes, nearest_cells


class LabelTransfer(NamedTuple):
    """Scores of labels that are predicted as the commonest among the nearest cells."""

    accuracy: float
    """Share of cells whose label is predicted."""
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
    """Macro F1 of labels that are predicted as the commonest among the nearest neighbours.

    The F1 of a label is the harmonic mean of its precision and recall; the mean is over the labels
    that scored cells have, so that a rare one counts as much as a common one. Neighbours and ties
    are those of :func:`~cellvae.evaluation.knn_accuracy`: where m labels are equally common, each
    is predicted to the share 1/m.

    Parameters
    ----------
    latent
        Positions of the cells [cells, latent]; distances are Euclidean.
    labels
        Label of each cell [cells].
    k
        Neighbours of a cell.
    train
        Cells that neighbours are taken from, as numbers or truths; None for all.
    test
        Cells that are scored, as numbers or truths; None for all.

    Returns
    -------
    Mean from 0 to 1.

    Raises
    ------
    InvalidOptionError
        If arrays do not fit each other, a chosen cell has no label, or there are fewer than `k`
        neighbours to choose from.
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
    """Scores from the labels around each cell [cells, k] and its own [cells]."""
    votes = count_votes(around)
    commonest = votes == votes.max(axis=1)[:, None]
    shares = commonest / commonest.sum(axis=1)[:, None]
    n_labels = int(max(around.max(), own.max())) + 1
    is_own = around == own[:, None]
    hits = np.bincount(own, (shares * is_own).sum(axis=1), n_labels)
    predicted = np.bincount(around.ravel(), shares.ravel(), n_labels)
    true = np.bincount(own, minlength=n_labels)
    there = true > 0
    f1 = 2 * hits[there] / (predicted[there] + true[there])
    return LabelTransfer(
        accuracy=min(1.0, float(hits.sum() / len(own))), f1=min(1.0, float(f1.mean()))
    )
