"""Retrieval against rankings made one query at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from cellvae.errors import InvalidOptionError
from cellvae.evaluation.retrieval import (
    RANKING_SCORES,
    SCORES_AT_K,
    match_cells,
    retrieval_scores,
    score_names,
)

ALL = (*SCORES_AT_K, *RANKING_SCORES)


def by_hand(order: list[bool], k: int) -> dict[str, float]:
    """Scores of one query from the relevance of all its candidates in order."""
    first, n = order[:k], sum(order)
    hits = sum(first)
    gains = sum(1 / np.log2(i + 2) for i, x in enumerate(first) if x)
    ideal = sum(1 / np.log2(i + 2) for i in range(min(n, k)))
    precisions = [sum(first[: i + 1]) / (i + 1) for i, x in enumerate(first) if x]
    return {
        f"precision@{k}": hits / k,
        f"recall@{k}": hits / n,
        f"f1@{k}": 2 * hits / (k + n),
        f"map@{k}": sum(precisions) / min(n, k),
        f"dcg@{k}": gains,
        f"ndcg@{k}": gains / ideal,
        f"hit@{k}": float(hits > 0),
        "mrr": 1 / (order.index(True) + 1),
        "r_precision": sum(order[:n]) / n,
    }


@pytest.fixture
def cells() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "query": rng.normal(size=(15, 4)),
        "index": rng.normal(size=(40, 4)),
        "query_labels": rng.integers(0, 5, 15),
        "index_labels": rng.integers(1, 5, 40),
    }


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5, 20, 40])
def test_every_score_is_that_of_ranking_each_query(
    cells: dict[str, Any], metric: Any, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, index = cells["query"], cells["index"]
    batch = np.random.default_rng(1).integers(0, 3, 55)
    one_by_one = []
    for i, q in enumerate(query):
        if metric == "cosine":
            near = [q @ x / np.linalg.norm(q) / np.linalg.norm(x) for x in index]
        else:
            near = [-float(np.linalg.norm(q - x)) for x in index]
        order = [
            bool(cells["index_labels"][j] == cells["query_labels"][i])
            for j in np.argsort(near)[::-1]
            if batch[15 + j] != batch[i]
        ]
        if any(order):
            one_by_one.append(by_hand(order, k))
    monkeypatch.setattr("cellvae.evaluation.retrieval.CHUNK", 200)
    found = match_cells(**cells, k=k, metric=metric, exclude=[(batch[:15], batch[15:])])
    scores = retrieval_scores(found, ALL, k)
    assert len(one_by_one) < 15
    assert set(scores) == set(score_names(ALL, k)) == set(one_by_one[0])
    for name, score in scores.items():
        assert score == pytest.approx(np.mean([row[name] for row in one_by_one])), name


def test_scores_of_all_candidates_are_those_of_scikit_learn(cells: dict[str, Any]) -> None:
    found = match_cells(**cells, k=40, metric="euclidean")
    relevant = cells["query_labels"][:, None] == cells["index_labels"]
    near = -np.linalg.norm(cells["query"][:, None] - cells["index"], axis=2)
    some = relevant.any(axis=1)
    scores = retrieval_scores(found, ("map", "ndcg"), 40)
    precisions = [
        average_precision_score(r, n) for r, n in zip(relevant[some], near[some], strict=True)
    ]
    assert scores["map@40"] == pytest.approx(np.mean(precisions))
    assert scores["ndcg@40"] == pytest.approx(ndcg_score(relevant[some], near[some]))


def test_a_cell_that_is_excluded_is_not_its_own_match(cells: dict[str, Any]) -> None:
    query, labels = cells["query"], np.arange(15)
    numbers = np.arange(100, 115)
    found = match_cells(query, query, labels, labels, k=3)
    assert found.cells[:, 0].tolist() == list(range(15))
    assert found.similarity[:, 0] == pytest.approx(np.ones(15))
    found = match_cells(query, query, labels, labels, k=15, exclude=[(numbers, numbers)])
    assert not (found.cells == np.arange(15)[:, None]).any()
    # One candidate too few for k: the last place is empty.
    assert (found.cells[:, -1] == -1).all()
    assert not found.n_relevant.any()
    assert np.isnan(retrieval_scores(found, ("mrr",), 15)["mrr"])


def test_perfect_neighbours_have_perfect_scores() -> None:
    labels = np.repeat(np.arange(3), 10)
    points = np.eye(3)[labels] + 1e-3 * np.random.default_rng(0).normal(size=(30, 3))
    every = np.arange(30)
    found = match_cells(points, points, labels, labels, k=9, exclude=[(every, every)])
    scores = retrieval_scores(found, ALL, 9)
    dcg = scores.pop("dcg@9")
    assert dcg == pytest.approx(sum(1 / np.log2(i + 2) for i in range(9)))
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


def test_k_beyond_the_cells_there_are_counts_the_missing_as_not_relevant() -> None:
    found = match_cells(np.eye(2), np.eye(2), np.zeros(2, int), np.zeros(2, int), k=10)
    assert found.cells.shape == (2, 10)
    assert retrieval_scores(found, ("precision", "recall"), 10) == {
        "precision@10": pytest.approx(0.2),
        "recall@10": 1,
    }


def test_an_unknown_score_is_named() -> None:
    with pytest.raises(InvalidOptionError, match="got 'precison'. Did you mean 'precision'"):
        score_names(["precison"], 5)
