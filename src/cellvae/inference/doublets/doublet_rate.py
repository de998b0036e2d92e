"""Rate of doublets among cells, estimated from the features of cells and simulated doublets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidDataError

N_FOLDS = 5
FIRST_CALLED = 0.4
N_ROUNDS = 4
"""Rounds of classification; each leaves out doublets of cells that were called before it."""
MIN_TAIL = 0.3
"""Smallest fraction of the simulated doublets above a threshold that is compared."""
MIN_CELLS = 50
MIN_CELLS_OF_GROUP = 500
"""Cells from which a group has a rate of its own; smaller groups share one."""


def estimate_rates(
    features: NDArray[np.float32],
    doublets: NDArray[np.float32],
    parents: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Fraction of doublets among the cells of each group, [groups].

    Cells are a mixture of single cells and of doublets, and simulated doublets are a sample of the
    second component; its weight is the lowest ratio of the fraction of cells to that of simulated
    doublets whose score is above a threshold (the best bin estimator of Garg et al. 2021, section
    4), as long as single cells do not score as high as doublets. Two things would bias it:

    - A classifier scores the cells it was trained on lower than others. Scores are out of fold,
      of gradient-boosted trees fitted to the other four fifths.
    - Simulated doublets are sums of cells, some of which are doublets themselves. In each round,
      those of a cell that was called in the round before are left out of fit and ratio.

    Parameters
    ----------
    features
        Features of the cells, [cells, features].
    doublets
        Features of the simulated doublets, [doublets, features].
    parents
        Indices of the two cells of each doublet, [doublets, 2]; -1 where they are not known.
    groups
        Code of the group of each cell, [cells]. Groups of fewer than 500 cells share one rate.
    seed
        Seed of folds and trees.

    Raises
    ------
    InvalidDataError
        If there are fewer than 50 cells, or fewer than 50 doublets that can be used.
    """
    if min(len(features), len(doublets)) < MIN_CELLS:
        raise InvalidDataError(
            f"Expected at least {MIN_CELLS} cells and simulated doublets to estimate a rate from; "
            f"got {len(features):,} and {len(doublets):,}. Give expected_rate."
        )
    own = pooled_groups(groups)
    known = parents.min(axis=1) >= 0
    group_of_doublet = np.where(known, own[np.maximum(parents[:, 0], 0)], 0)
    used = np.ones(len(doublets), dtype=bool)
    rates = np.zeros(own.max() + 1)
    for n_round in range(N_ROUNDS):
        scores, scores_of_doublets = out_of_fold_scores(features, doublets, used, seed)
        called = np.zeros(len(features), dtype=bool)
        for group in range(len(rates)):
            cells = np.flatnonzero(own == group)
            of_group = used & ((group_of_doublet == group) | ~known)
            if not of_group.any():
                of_group = used
            rates[group] = tail_ratio(scores[cells], scores_of_doublets[of_group])
            if n_round == 0 and known.any():
                rates[group] = FIRST_CALLED
            n_called = round(rates[group] * len(cells))
            called[cells[np.argsort(-scores[cells], kind="stable")[:n_called]]] = True
        used = ~(known & called[parents].any(axis=1))
        if used.sum() < MIN_CELLS or not known.any():
            break
    by_group: NDArray[np.float64] = np.zeros(groups.max() + 1)
    by_group[groups] = rates[own]
    return by_group


def pooled_groups(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Code of the group of each cell, the small groups together as one."""
    small = np.bincount(groups)[groups] < MIN_CELLS_OF_GROUP
    merged = np.where(small, groups.max() + 1, groups)
    return np.unique(merged, return_inverse=True)[1].reshape(-1)


def tail_ratio(scores: NDArray[np.float64], scores_of_doublets: NDArray[np.float64]) -> float:
    """Lowest ratio of the fractions of cells and of doublets above a threshold; at most 1.

    Thresholds have at least `MIN_TAIL` of the doublets above them, so that the ratio does not
    depend on the few that score highest.
    """
    n = len(scores_of_doublets)
    ordered = np.sort(scores_of_doublets)
    thresholds = ordered[: max(1, int((1 - MIN_TAIL) * n))]
    above = n - np.searchsorted(ordered, thresholds, side="left")
    cells_above = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
    return float(min(1.0, (cells_above / len(scores) / (above / n)).min()))


def out_of_fold_scores(
    features: NDArray[np.float32],
    doublets: NDArray[np.float32],
    used: NDArray[np.bool_],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds to be a simulated doublet by a classifier that was not fitted to the cell.

    Parameters
    ----------
    features, doublets
        Features of cells and of simulated doublets.
    used
        Whether the classifiers are fitted to each doublet, [doublets].
    seed
        Seed of folds and trees.

    Returns
    -------
    Scores of the cells and of all doublets.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    values = np.concatenate([features, doublets])
    is_doublet = np.repeat([0, 1], [len(features), len(doublets)])
    fitted = np.concatenate([np.ones(len(features), dtype=bool), used])
    random = np.random.default_rng(seed)
    folds = np.concatenate(
        [random.permutation(np.arange(n) % N_FOLDS) for n in (len(features), len(doublets))]
    )
    scores = np.zeros(len(values))
    for fold in range(N_FOLDS):
        others, here = (folds != fold) & fitted, folds == fold
        trees = HistGradientBoostingClassifier(
            learning_rate=0.08,
            max_iter=100,
            min_samples_leaf=30,
            early_stopping=False,
            random_state=seed,
        )
        # Its threads wait for each other many times a tree, which takes minutes on a busy machine.
        with threadpool_limits(1):
            trees.fit(values[others], is_doublet[others])
            scores[here] = trees.decision_function(values[here])
    return scores[: len(features)], scores[len(features) :]
