"""Retrieval: whether the cells nearest to a query have its label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError, did_you_mean

Distance = Literal["cosine", "euclidean"]
CHUNK = 2**22
"""Pairs of a query and an indexed cell in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Nearest indexed cells of each query, and which of them are relevant.

    Arrays are [queries, k], or [queries] for counts and ranks. If a query has fewer than k
    candidates, the other matches are not relevant and have index -1.
    """

    cells: NDArray[np.int64]
    """Indices of the matches, the most similar first."""
    similarity: NDArray[np.float64]
    """Cosine similarity, or minus the Euclidean distance."""
    relevant: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]
    """Number of relevant candidates of each query."""
    first_rank: NDArray[np.int64]
    """Rank, from 1, of the first relevant candidate; 0 if there is none."""
    n_in_first: NDArray[np.int64]
    """Number of relevant candidates among the first R, for R relevant candidates."""


def match_cells(
    query: NDArray[np.floating],
    index: NDArray[np.floating],
    query_labels: NDArray[np.int64],
    index_labels: NDArray[np.int64],
    *,
    k: int = 20,
    metric: Distance = "cosine",
    exclude: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]] = (),
) -> Matches:
    """Find the nearest indexed cells of each query; memory does not grow with the queries.

    Parameters
    ----------
    query, index
        Positions [queries, latent] and [indexed, latent].
    query_labels, index_labels
        Code of the label of each cell; a candidate with the label of the query is relevant.
    k
        Number of matches of a query.
    metric
        Similarity of cells.
    exclude
        Pairs of codes [queries] and [indexed]: an indexed cell with the code of the query is not
        a candidate for it.
    """
    targets = normalize_rows(index) if metric == "cosine" else index.astype(np.float64)
    parts = []
    n_rows = max(1, CHUNK // len(index))
    for rows in iter_slices(len(query), n_rows):
        near = similarities(query[rows], targets, metric)
        relevant = query_labels[rows, None] == index_labels
        for of_query, of_index in exclude:
            out = of_query[rows, None] == of_index
            near[out] = -np.inf
            relevant &= ~out
        if k > len(index):
            beyond = ((0, 0), (0, k - len(index)))
            near = np.pad(near, beyond, constant_values=-np.inf)
            relevant = np.pad(relevant, beyond)
        parts.append(match_chunk(near, relevant, k))
    names = ("cells", "similarity", "relevant", "n_relevant", "first_rank", "n_in_first")
    joined = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Matches(**dict(zip(names, joined, strict=True)))


def iter_slices(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `n`."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def normalize_rows(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows scaled to unit length; rows of zeros are unchanged."""
    lengths = np.linalg.norm(points.astype(np.float64), axis=1, keepdims=True)
    return points / np.where(lengths > 0, lengths, 1.0)


def similarities(
    query: NDArray[np.floating], targets: NDArray[np.float64], metric: Distance
) -> NDArray[np.float64]:
    """Similarity of each query to each target, [queries, indexed]."""
    if metric == "cosine":
        return normalize_rows(query) @ targets.T
    from scipy.spatial.distance import cdist

    return -cdist(query.astype(np.float64), targets)


def match_chunk(
    near: NDArray[np.float64], relevant: NDArray[np.bool_], k: int
) -> tuple[NDArray[Any], ...]:
    """Fields of :class:`Matches` for some queries, from all their candidates."""
    top = np.argpartition(-near, k - 1, axis=1)[:, :k]
    order = np.lexsort((top, -np.take_along_axis(near, top, axis=1)), axis=1)
    top = np.take_along_axis(top, order, axis=1)
    similarity = np.take_along_axis(near, top, axis=1)
    n_relevant = relevant.sum(axis=1)
    best = np.where(relevant, near, -np.inf).max(axis=1)
    first_rank = np.where(n_relevant > 0, (near > best[:, None]).sum(axis=1) + 1, 0)
    n_in_first = np.zeros(len(near), dtype=np.int64)
    for n in np.unique(n_relevant[n_relevant > 0]):
        rows = np.flatnonzero(n_relevant == n)
        first = np.argpartition(-near[rows], n - 1, axis=1)[:, :n]
        n_in_first[rows] = np.take_along_axis(relevant[rows], first, axis=1).sum(axis=1)
    found = np.take_along_axis(relevant, top, axis=1)
    cells = np.where(np.isfinite(similarity), top, -1)
    return cells, similarity, found, n_relevant, first_rank, n_in_first


def precision(found: Matches) -> NDArray[np.float64]:
    """Fraction of the k matches that are relevant."""
    return found.relevant.mean(axis=1)


def recall(found: Matches) -> NDArray[np.float64]:
    """Fraction of the relevant candidates that are among the k matches."""
    return found.relevant.sum(axis=1) / found.n_relevant


def f1(found: Matches) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall among the k matches."""
    hits, k = found.relevant.sum(axis=1), found.relevant.shape[1]
    return 2 * hits / (k + found.n_relevant)


def average_precision(found: Matches) -> NDArray[np.float64]:
    """Mean precision at each relevant match, divided by the largest possible number of them."""
    ranks = np.arange(1, found.relevant.shape[1] + 1)
    at_rank = np.cumsum(found.relevant, axis=1) / ranks
    possible = np.minimum(found.n_relevant, found.relevant.shape[1])
    return (at_rank * found.relevant).sum(axis=1) / possible


def dcg(found: Matches) -> NDArray[np.float64]:
    """Relevant matches, each discounted by the binary logarithm of its rank plus one."""
    gains = found.relevant * discounts(found.relevant.shape[1])
    return np.asarray(gains.sum(axis=1))


def ndcg(found: Matches) -> NDArray[np.float64]:
    """Discounted gain, divided by that of the ideal order."""
    k = found.relevant.shape[1]
    ideal = np.cumsum(discounts(k))[np.minimum(found.n_relevant, k) - 1]
    gains: NDArray[np.float64] = dcg(found) / ideal
    return gains


def discounts(k: int) -> NDArray[np.float64]:
    """Weight of a relevant match at each rank."""
    return np.asarray(1 / np.log2(np.arange(2.0, k + 2)))


def hit(found: Matches) -> NDArray[np.float64]:
    """Whether any of the k matches is relevant."""
    return np.asarray(found.relevant.any(axis=1), dtype=np.float64)


def reciprocal_rank(found: Matches) -> NDArray[np.float64]:
    """One over the rank of the first relevant candidate, which may be beyond k."""
    return np.asarray(1 / found.first_rank)


def r_precision(found: Matches) -> NDArray[np.float64]:
    """Precision among the first R candidates, for R relevant candidates."""
    return found.n_in_first / found.n_relevant


SCORES_AT_K: MappingProxyType[str, Callable[[Matches], NDArray[np.float64]]] = MappingProxyType(
    {
        "precision": precision,
        "recall": recall,
        "map": average_precision,
        "ndcg": ndcg,
        "hit": hit,
        "f1": f1,
        "dcg": dcg,
    }
)
"""Scores of the first k matches, by name."""
RANKING_SCORES: MappingProxyType[str, Callable[[Matches], NDArray[np.float64]]] = MappingProxyType(
    {"mrr": reciprocal_rank, "r_precision": r_precision}
)
"""Scores of the ranking of all candidates, by name."""


def score_names(metrics: Sequence[str], k: int) -> list[str]:
    """Logged names of scores: `precision@20`, `mrr`.

    Raises
    ------
    InvalidOptionError
        If there is no such score.
    """
    known = {**SCORES_AT_K, **RANKING_SCORES}
    for name in metrics:
        if name not in known:
            raise InvalidOptionError(
                f"Expected metrics among {', '.join(known)}; got '{name}'."
                f"{did_you_mean(str(name), known)}"
            )
    return [f"{name}@{k}" if name in SCORES_AT_K else name for name in metrics]


def retrieval_scores(found: Matches, metrics: Sequence[str], k: int) -> dict[str, float]:
    """Mean scores over the queries with relevant candidates; NaN if there are none."""
    scored = found.n_relevant > 0
    subset = Matches(**{name: values[scored] for name, values in vars(found).items()})
    functions = {**SCORES_AT_K, **RANKING_SCORES}
    return {
        logged_name: float(functions[name](subset).mean()) if scored.any() else float("nan")
        for name, logged_name in zip(metrics, score_names(metrics, k), strict=True)
    }
