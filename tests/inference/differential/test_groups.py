"""Cells that are compared, against sets made by hand."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellvae.data.setup.categories import to_python_scalar
from cellvae.errors import CellvaeError, InvalidOptionError, UnknownKeyError
from cellvae.inference.differential.groups import populations_of_cells, populations_of_column
from cellvae.inference.differential.table import add_group_columns

VALUES: list[list[Any]] = [
    [1, 2, 3],
    [0.5, 1.5, 2.5],
    [b"a", b"b", b"c"],
    [("a", 1), ("a", 2), ("b", 1)],
    [pd.Timestamp("2024-03-01"), pd.Timestamp("2024-03-02"), pd.Timestamp("2025-03-01")],
    [datetime.date(2024, 3, 1), datetime.date(2024, 3, 2), datetime.date(2025, 3, 1)],
    [pd.Timedelta("1h"), pd.Timedelta("2h"), pd.Timedelta("3h")],
    [pd.Interval(0, 1), pd.Interval(1, 2), pd.Interval(2, 3)],
    [pd.Period("2024-03", "M"), pd.Period("2024-04", "M"), pd.Period("2024-05", "M")],
]


def column_of(values: list[Any]) -> pd.Series:
    column = pd.Series([None] * len(values), dtype=object, index=range(len(values)))
    for place, value in enumerate(values):
        column.iat[place] = value
    return column


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
    assert shown(populations_of_column(adata, "number", 2, 0)) == [([4, 5], [0, 2], (2, 0))]
    for group in ("2", b"2"):
        kind = type(group).__name__
        with pytest.raises(UnknownKeyError, match=f"as {kind}.*groups are '0', '1', '2' as int"):
            populations_of_column(adata, "number", group)
    with pytest.raises(UnknownKeyError, match=r"got '2' as str\. Give it as int\. The groups"):
        populations_of_column(adata, "number", "2")


@pytest.mark.parametrize("values", VALUES, ids=lambda values: type(values[0]).__name__)
def test_groups_keep_their_type(values: list[Any]) -> None:
    obs = pd.DataFrame({"kind": column_of([values[i] for i in (0, 1, 2, 1, 0)])}, dtype=object)
    adata = AnnData(np.ones((5, 2), dtype=np.float32), obs=obs.set_axis(list("vwxyz")))
    first, second, third = values
    expected = [([0, 4], [1, 3], (first, second))]
    assert shown(populations_of_column(adata, "kind", first, second)) == expected
    expected += [([2], [1, 3], (third, second))]
    assert shown(populations_of_column(adata, "kind", [first, third], second)) == expected
    every = [pair.names[0] for pair in populations_of_column(adata, "kind").comparisons]
    assert sorted(every, key=values.index) == values
    assert {type(name) for name in every} == {type(to_python_scalar(value)) for value in values}


def test_groups_are_columns_of_the_type_that_they_have() -> None:
    table = pd.DataFrame(index=["g1", "g2"])
    for values in VALUES:
        found = add_group_columns(table.copy(), (to_python_scalar(values[0]), "Rest"))
        assert [*found["group1"]] == [values[0]] * 2
        assert [*found["group2"]] == ["Rest", "Rest"]
    assert add_group_columns(table.copy(), (1, 2))["group1"].dtype == np.int64
    assert add_group_columns(table.copy(), (True, False))["group1"].dtype == bool


@pytest.mark.parametrize(
    "idx1",
    [
        "age > 2 and kind == 'a'",
        np.arange(6) == 2,
        [2],
        [-4],
        ["cell2"],
        [2, 2],
        np.where(np.arange(6) == 2),
        np.array([[2]]),
        (np.arange(6) == 2)[:, None],
        pd.Series(np.arange(6)[::-1] == 2, index=[f"cell{i}" for i in range(6)][::-1]),
        slice(2, 3),
        range(2, 3),
        pd.Index(["cell2"]),
    ],
)
def test_cells_by_query_mask_number_and_name(adata: AnnData, idx1: Any) -> None:
    assert shown(populations_of_cells(adata, idx1, "age == 6")) == [([2], [5], None)]
    assert shown(populations_of_cells(adata, idx1)) == [([2], [0, 1, 3, 4, 5], None)]


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"groupby": "kinds"}, UnknownKeyError, "Did you mean 'kind'"),
        ({"groupby": "one"}, InvalidOptionError, "several groups"),
        ({"groupby": "kind", "group1": "unused"}, InvalidOptionError, "no cell has"),
        ({"groupby": "kind", "group1": "d"}, UnknownKeyError, "The groups are 'a', 'b', 'c'"),
        ({"groupby": "kind", "group1": "a", "group2": "d"}, UnknownKeyError, "got 'd'"),
        ({"groupby": "kind", "group1": "a", "group2": "a"}, InvalidOptionError, "in both"),
        ({"groupby": "kind", "group1": []}, InvalidOptionError, "at least one group"),
        ({"idx1": "age > 100"}, InvalidOptionError, "idx1 to select cells"),
        ({"idx1": "agee > 1"}, InvalidOptionError, "query of the columns"),
        ({"idx1": "age >"}, InvalidOptionError, "query of the columns"),
        ({"idx1": "age > 0"}, InvalidOptionError, "got all cells"),
        ({"idx1": [0, 1], "idx2": [1, 2]}, InvalidOptionError, "1 in both: 'cell1'"),
        ({"idx1": [6]}, InvalidOptionError, "from 0 to 5"),
    ],
)
def test_cells_that_cannot_be_compared(
    adata: AnnData, kwargs: Mapping[str, Any], error: type[CellvaeError], text: str
) -> None:
    ask = populations_of_column if "groupby" in kwargs else populations_of_cells
    with pytest.raises(error, match=text):
        ask(adata, **kwargs)
