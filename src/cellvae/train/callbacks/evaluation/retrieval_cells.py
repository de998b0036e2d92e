"""The two sides of a retrieval: queries, and the cells that they are matched with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidDataError
from cellvae.evaluation.inputs import category_codes
from cellvae.evaluation.retrieval import Distance, Matches, match_cells
from cellvae.train.callbacks.evaluation.cell_selection import CellSelection, encode_latents
from cellvae.train.loop.training_plan import TrainingPlan

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalCells:
    """Queries and indexed cells, with the labels that decide what is relevant."""

    query: CellSelection
    index: CellSelection
    query_values: NDArray[np.object_]
    index_values: NDArray[np.object_]
    labels: Pair
    exclude: Sequence[Pair]

    def points(
        self, plan: TrainingPlan, batch_size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latents of queries and indexed cells; encoded once if they are the same."""
        query = encode_latents(plan, self.query, batch_size)
        same = self.index is self.query
        return query, query if same else encode_latents(plan, self.index, batch_size)

    def match(
        self, query: NDArray[np.float64], index: NDArray[np.float64], k: int, metric: Distance
    ) -> Matches:
        """Nearest indexed cells of each query."""
        return match_cells(query, index, *self.labels, k=k, metric=metric, exclude=self.exclude)

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


def select_retrieval_cells(
    query: CellSelection,
    index: CellSelection,
    label_key: str,
    *,
    exclude_self: bool,
    exclude_same: str | None,
) -> RetrievalCells:
    """Queries and indexed cells with their labels, and who is no match for whom.

    Raises
    ------
    InvalidDataError
        If no query has a label that an indexed cell has.
    """
    values = query.column(label_key), index.column(label_key)
    labels = shared_codes(*values, label_key)
    if not np.isin(*labels).any():
        raise InvalidDataError(
            f"Expected labels of '{label_key}' that queries and indexed cells share; got none."
        )
    exclude = []
    if exclude_self and index.same_table(query):
        exclude.append((query.indices, index.indices))
    if exclude_same is not None:
        of_query, of_index = shared_codes(
            query.column(exclude_same), index.column(exclude_same), exclude_same
        )
        # A cell without a value has it in common with no other.
        exclude.append((np.where(of_query < 0, -2, of_query), of_index))
    return RetrievalCells(
        query=query,
        index=index,
        query_values=values[0],
        index_values=values[1],
        labels=labels,
        exclude=exclude,
    )


def shared_codes(query: NDArray[np.object_], index: NDArray[np.object_], what: str) -> Pair:
    """Numbers of the values of both sides; equal values have equal numbers."""
    both = category_codes(np.concatenate([query, index]), len(query) + len(index), what)
    return both[: len(query)], both[len(query) :]
