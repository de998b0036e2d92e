"""Cells that are compared, against sets made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellvae.errors import CellvaeError, InvalidOptionError, UnknownKeyError
from cellvae.inference.differential.groups import populations_of_cells, populations_of_column

KINDS = ["a", "b", "a", "c", None, "b"]


@pytest.fixture
def adata() -> AnnData:
    kind = pd.Categorical(KINDS, categories=["a", "b", "c", "unused"])
    obs = pd.DataFrame(
        {"kind": kind, "age": [1, 2, 3, 4, 5, 6], "one": "x", "number": [0, 1, 0, 1, 2, 2]},
        index=[f"cell{i}" for i in range(6)],
    )
    return AnnData(np.ones((6, 2), dtype=np.float32), obs=obs)


def shown(found: Any) -> list[tuple[list[int], list[int], Any]]:
    return [
        ([*found.cells[pair.first]], [*found.cells[pair.second]], pair.names)
        for pair in found.comparisons
    ]


def test_each_group_against_all_other_cells(adata: AnnData) -> None:
    assert shown(populations_of_column(adata, "kind")) == [
        ([0, 2], [1, 3, 4, 5], ("a", "Rest")),
        ([1, 5], [0, 2, 3, 4], ("b", "Rest")),
        ([3], [0, 1, 2, 4, 5], ("c", "Rest")),
    ]


def test_groups_in_the_order_asked_against_one(adata: AnnData) -> None:
    found = populations_of_column(adata, "kind", ["c", "a"], "b")
    assert shown(found) == [([3], [1, 5], ("c", "b")), ([0, 2], [1, 5], ("a", "b"))]
    assert len(found.cells) == 3
    names = [pair.names for pair in populations_of_column(adata, "kind", None, "b").comparisons]
    assert names == [("a", "b"), ("c", "b")]


def test_groups_that_are_numbers(adata: AnnData) -> None:
    assert shown(populations_of_column(adata, "number", 2, 0)) == [([4, 5], [0, 2], ("2", "0"))]


@pytest.mark.parametrize(
    "idx1", ["age > 2 and kind == 'a'", np.arange(6) == 2, [2], [-4], ["cell2"], [2, 2]]
)
def test_cells_by_query_mask_number_and_name(adata: AnnData, idx1: Any) -> None:
    assert shown(populations_of_cells(adata, idx1, "age == 6")) == [([2], [5], None)]
    assert shown(populations_of_cells(adata, idx1)) == [([2], [0, 1, 3, 4, 5], None)]


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        ({"groupby": "kinds"}, UnknownKeyError, "Did you mean 'kind'"),
        ({"groupby": "one"}, InvalidOptionError, "several groups"),
        ({"groupby": "kind", "group1": "unused"}, InvalidOptionError, "no cell has"),
        ({"groupby": "kind", "group1": "d"}, UnknownKeyError, "The groups are 'a', 'b', 'c'"),
        ({"groupby": "kind", "group1": "a", "group2": "d"}, UnknownKeyError, "got 'd'"),
        ({"groupby": "kind", "group1": "a", "group2": "a"}, InvalidOptionError, "in both"),
        ({"groupby": "kind", "group1": []}, InvalidOptionError, "at least one group"),
        ({"idx1": "age > 100"}, InvalidOptionError, "idx1 to point at cells"),
        ({"idx1": "agee > 1"}, InvalidOptionError, "query of the columns"),
        ({"idx1": "age >"}, InvalidOptionError, "query of the columns"),
        ({"idx1": "age > 0"}, InvalidOptionError, "got all cells"),
        ({"idx1": [0, 1], "idx2": [1, 2]}, InvalidOptionError, "1 in both: 'cell1'"),
        ({"idx1": [6]}, InvalidOptionError, "from 0 to 5"),
    ],
)
def test_cells_that_cannot_be_compared(
    adata: AnnData, words: Mapping[str, Any], error: type[CellvaeError], text: str
) -> None:
    ask = populations_of_column if "groupby" in words else populations_of_cells
    with pytest.raises(error, match=text):
        ask(adata, **words)
