"""The two sides of a retrieval: queries, and the cells that they are matched with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidDataError
from cellvae.evaluation.inputs import codes_of
from cellvae.evaluation.retrieval import Distance, Matches, match
from cellvae.train.callbacks.latents import ChosenCells, latents
from cellvae.train.plan import Plan

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sides:
    """Queries and indexed cells, with the labels that decide what is relevant."""

    query: ChosenCells
    index: ChosenCells
    query_values: NDArray[np.object_]
    index_values: NDArray[np.object_]
    labels: Pair
    exclude: Sequence[Pair]

    def points(
        self, plan: Plan, batch_size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latents of queries and indexed cells; encoded once if they are the same."""
        query = latents(plan, self.query, batch_size)
        same = self.index is self.query
        return query, query if same else latents(plan, self.index, batch_size)

    def match(
        self, query: NDArray[np.float64], index: NDArray[np.float64], k: int, metric: Distance
    ) -> Matches:
        """Nearest indexed cells of each query."""
        return match(query, index, *self.labels, k=k, metric=metric, exclude=self.exclude)

    def examples(self, found: Matches, n: int) -> list[dict[str, Any]]:
        """Matches of the first queries, as plain values."""
        first = np.arange(min(n, len(found.cells)))
        shown = []
        for query, name in zip(first, self.query.names(first), strict=True):
            there = found.cells[query] >= 0
            cells = found.cells[query][there]
            near = found.similarity[query][there].tolist()
            matches = [
                {"name": n, "label": str(self.index_values[cell]), "similarity": s}
                for n, cell, s in zip(self.index.names(cells), cells, near, strict=True)
            ]
            label = str(self.query_values[query])
            shown.append({"name": name, "label": label, "matches": matches})
        return shown


def sides_of(
    query: ChosenCells,
    index: ChosenCells,
    label_key: str,
    *,
    exclude_self: bool,
    exclude_same: str | None,
) -> Sides:
    """Queries and indexed cells with their labels, and who is no match for whom.

    Raises
    ------
    InvalidDataError
        If no query has a label that an indexed cell has.
    """
    values = query.column(label_key), index.column(label_key)
    labels = paired(*values, label_key)
    if not np.isin(*labels).any():
        raise InvalidDataError(
            f"Expected labels of '{label_key}' that queries and indexed cells share; got none."
        )
    exclude = []
    if exclude_self and index.is_from_where(query):
        exclude.append((query.numbers, index.numbers))
    if exclude_same is not None:
        of_query, of_index = paired(
            query.column(exclude_same), index.column(exclude_same), exclude_same
        )
        # A cell without a value has it in common with no other.
        exclude.append((np.where(of_query < 0, -2, of_query), of_index))
    return Sides(
        query=query,
        index=index,
        query_values=values[0],
        index_values=values[1],
        labels=labels,
        exclude=exclude,
    )


def paired(query: NDArray[np.object_], index: NDArray[np.object_], what: str) -> Pair:
    """Numbers of the values of both sides; equal values have equal numbers."""
    both = codes_of(np.concatenate([query, index]), len(query) + len(index), what)
    return both[: len(query)], both[len(query) :]
