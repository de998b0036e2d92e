"""Rate of doublets among cells, estimated from the features of cells and simulated doublets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidDataError

N_FOLDS = 5
N_ROUNDS = 4
"""Fits of the classifiers; each leaves out doublets of cells that were called before it."""
FIRST_CALLED = 0.4
"""Rate that the first round starts from: above any, since from below the estimate stays low."""
N_FIRST_UPDATES, TOLERANCE = 30, 5e-4
FIRST_TAIL, TAIL = 0.6, 0.5
"""Smallest fraction of simulated doublets above a threshold in the first and the later rounds."""
MAX_FITTED = 60_000
"""Cells and doublets that trees of a fold are fitted to, drawn at random from more."""
MIN_CELLS = 30
MIN_CELLS_OF_GROUP = 500
"""Cells from which a group has a rate of its own; smaller groups share one."""


def estimate_rates(
    features: NDArray[np.float32],
    doublets: NDArray[np.float32],
    parents: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    given: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> DoubletEstimate:
    """Fraction of doublets among the cells of each group, and log odds of each cell.

    Cells are a mixture of single cells and of doublets, and simulated doublets are a sample of the
    second component; its weight is the lowest ratio of the fraction of cells to that of simulated
    doublets whose score is above a threshold (the best bin estimator of Garg et al. 2021, section
    4), as long as single cells do not score as high as doublets. Two things would bias it:

    - A classifier scores the cells it was trained on lower than others. Scores are out of fold,
      of gradient-boosted trees fitted to the other four fifths.
    - Simulated doublets are sums of cells, some of which are doublets themselves. In each round,
      those of a cell that was called in the round before are left out of fit and ratio; the first
      round calls more cells than there may be doublets.

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
    given
        Rates that are known, [groups]; then only the log odds are estimated.
    seed
        Seed of folds and trees.

    Raises
    ------
    InvalidDataError
        If there are fewer than 30 cells, or fewer than 30 doublets that can be used.
    """
    if min(len(features), len(doublets)) < MIN_CELLS:
        raise InvalidDataError(
            f"Expected at least {MIN_CELLS} cells and simulated doublets to estimate a rate from; "
            f"got {len(features):,} and {len(doublets):,}. Give expected_rate."
        )
    pooled = pooled_groups(groups) if given is None else groups
    cells = Mixture(features, doublets, parents, pooled)
    used = np.ones(len(doublets), dtype=bool)
    rates = np.zeros(cells.groups.max() + 1) if given is None else given
    log_odds, later_scores = [], []
    for n_round in range(N_ROUNDS):
        scores = out_of_fold_scores(features, doublets, used, seed + n_round)
        log_odds.append(scores[0] + np.log(len(doublets) / used.sum()))
        if given is None and n_round == 0 and cells.has_known_parents.any():
            rates = first_rates(cells, scores)
        elif given is None:
            # By the scores of one fit a rate has an error of a point or more.
            later_scores.append(scores)
            of_cells, of_doublets = map(np.array, zip(*later_scores, strict=True))
            scores = of_cells.mean(axis=0), of_doublets.mean(axis=0)
            rates = tail_rates(cells, scores, used, TAIL)
        clean = cells.without_called(scores[0], rates)
        if clean.sum() < MIN_CELLS or not cells.has_known_parents.any():
            break
        used = clean
    by_group: NDArray[np.float64] = np.zeros(groups.max() + 1)
    by_group[groups] = rates[cells.groups]
    return DoubletEstimate(by_group, np.mean(log_odds, axis=0))


class DoubletEstimate(NamedTuple):
    """Rates of doublets, and how far each cell resembles them."""

    rates: NDArray[np.float64]
    """Fraction of doublets among the cells of each group, [groups]."""
    log_odds: NDArray[np.float64]
    """Log odds to be a simulated doublet, not a cell, of all of both; the mean of several fits of
    trees that were not fitted to the cell, [cells]."""


class Mixture(NamedTuple):
    """Cells of several groups, and doublets that were simulated of them."""

    features: NDArray[np.float32]
    doublets: NDArray[np.float32]
    parents: NDArray[np.int64]
    groups: NDArray[np.int64]

    @property
    def has_known_parents(self) -> NDArray[np.bool_]:
        """Whether the cells of each doublet are known, [doublets]."""
        return self.parents.min(axis=1) >= 0

    def doublets_of(self, group: int, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the used doublets are compared with the cells of a group, [doublets]."""
        own = self.groups[np.maximum(self.parents[:, 0], 0)] == group
        found: NDArray[np.bool_] = used & (own | ~self.has_known_parents)
        return found if found.any() else used

    def without_called(
        self, scores: NDArray[np.float64], rates: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which doublets are not of a cell among the highest scores of its group, [doublets]."""
        called = np.zeros(len(scores), dtype=bool)
        for group, rate in enumerate(rates):
            cells = np.flatnonzero(self.groups == group)
            order = np.argsort(-scores[cells], kind="stable")
            called[cells[order[: round(rate * len(cells))]]] = True
        clean: NDArray[np.bool_] = ~(self.has_known_parents & called[self.parents].any(axis=1))
        return clean


Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


def first_rates(cells: Mixture, scores: Scores) -> NDArray[np.float64]:
    """Rates by group that agree with the doublets that they leave out; scores are not updated."""
    rates = np.full(cells.groups.max() + 1, FIRST_CALLED)
    for _ in range(N_FIRST_UPDATES):
        clean = cells.without_called(scores[0], rates)
        if clean.sum() < MIN_CELLS:
            clean = np.ones(len(clean), dtype=bool)
        change = tail_rates(cells, scores, clean, FIRST_TAIL) - rates
        rates = rates + change / 2
        if np.abs(change).max() < TOLERANCE:
            break
    return rates


def tail_rates(
    cells: Mixture, scores: Scores, used: NDArray[np.bool_], tail: float
) -> NDArray[np.float64]:
    """Rate of each group, from the doublets that are used, [groups]."""
    return np.array(
        [
            tail_ratio(
                scores[0][cells.groups == group], scores[1][cells.doublets_of(group, used)], tail
            )
            for group in range(cells.groups.max() + 1)
        ]
    )


def pooled_groups(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Code of the group of each cell, the small groups together as one."""
    small = np.bincount(groups)[groups] < MIN_CELLS_OF_GROUP
    merged = np.where(small, groups.max() + 1, groups)
    return np.unique(merged, return_inverse=True)[1].reshape(-1)


def tail_ratio(
    scores: NDArray[np.float64], scores_of_doublets: NDArray[np.float64], tail: float
) -> float:
    """Lowest ratio of the fractions of cells and of doublets above a threshold; at most 1.

    Parameters
    ----------
    scores, scores_of_doublets
        Scores of the cells and of the simulated doublets.
    tail
        Fraction of the doublets that is above every threshold at least, so that the ratio does not
        depend on the few that score highest.
    """
    n = len(scores_of_doublets)
    ordered = np.sort(scores_of_doublets)
    thresholds = ordered[: int((1 - tail) * n) + 1]
    above = n - np.searchsorted(ordered, thresholds, side="left")
    cells_above = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
    return float(min(1.0, (cells_above / len(scores) / (above / n)).min()))


def out_of_fold_scores(
    features: NDArray[np.float32],
    doublets: NDArray[np.float32],
    used: NDArray[np.bool_],
    seed: int,
) -> Scores:
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
        others, here = np.flatnonzero((folds != fold) & fitted), folds == fold
        if len(others) > MAX_FITTED:
            others = random.choice(others, MAX_FITTED, replace=False)
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
