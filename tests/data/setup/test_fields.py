"""Fields: categories in the order of pandas, codes by value, numbers that can be used."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.data.setup.fields import (
    Categories,
    CategoriesRecord,
    Category,
    CategoryRecord,
    Counts,
    Field,
    FieldRecord,
    Numbers,
    NumbersRecord,
    count_fields,
)
from cellvae.data.setup.keys import CountKeys
from cellvae.errors import DataMismatchError, InvalidDataError, UnknownKeyError

CELLS = [f"cell-{i}" for i in range(6)]


def with_columns(columns: dict[str, object]) -> AnnData:
    obs = pd.DataFrame(columns, index=CELLS)
    return AnnData(np.ones((6, 2), np.float32), obs=obs)


def values_of(field: Field, adata: AnnData, record: FieldRecord | None = None) -> list[list[float]]:
    column = field.read(adata, record or field.describe(adata), None)
    assert column is not None and len(column) == 6
    return column.take(torch.arange(6)).tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "b", "c", "a", "b"], ("a", "b", "c")),
        (pd.Categorical(list("bab") * 2, categories=["z", "b", "a"]), ("z", "b", "a")),
        ([10, 9, 10, 2, 9, 9], (2, 9, 10)),
        ([1.5, 0.25, 1.5, 3.0, 3.0, 1.5], (0.25, 1.5, 3.0)),
        ([True, False] * 3, (False, True)),
        (pd.array(["b", "a"] * 3, dtype="string"), ("a", "b")),
        (pd.array([4, 3] * 3, dtype="Int64"), (3, 4)),
        (
            pd.to_datetime(["2024-02-01", "2023-01-01"] * 3),
            (pd.Timestamp("2023-01-01"), pd.Timestamp("2024-02-01")),
        ),
    ],
    ids=["text", "categories", "whole", "float", "truth", "string", "nullable", "dates"],
)
def test_categories_are_those_of_pandas_in_its_order_and_type(
    values: object, expected: tuple[object, ...]
) -> None:
    adata = with_columns({"kind": values})
    record = Category("batch", "kind").describe(adata)
    assert repr(record.categories) == repr(expected)
    codes = values_of(Category("batch", "kind"), adata, record)
    own = pd.Series(values, index=CELLS).astype("category").cat.codes
    assert codes == [[code] for code in own]


def test_without_a_key_there_is_one_category_and_every_code_is_0() -> None:
    adata = with_columns({})
    field = Category("batch")
    assert field.describe(adata) == CategoryRecord(key=None, categories=(0,))
    assert values_of(field, adata) == [[0]] * 6


def test_codes_follow_the_value_and_not_the_order_in_the_new_data() -> None:
    record = CategoryRecord(key="kind", categories=("late", "early", "never"))
    adata = with_columns({"kind": ["early", "late", "early", "early", "late", "late"]})
    assert values_of(Category("batch", "kind"), adata, record) == [[1], [0], [1], [1], [0], [0]]
    adata.obs["kind"] = adata.obs["kind"].astype("category").cat.add_categories(["unused"])
    assert values_of(Category("batch", "kind"), adata, record) == [[1], [0], [1], [1], [0], [0]]


def test_several_categories_are_columns_of_one_tensor_and_absent_without_keys() -> None:
    adata = with_columns({"a": list("xyxyxy"), "b": [3, 1, 2, 1, 2, 3]})
    field = Categories("categorical", ("b", "a"))
    assert field.describe(adata) == CategoriesRecord(
        keys=("b", "a"), categories=((1, 2, 3), ("x", "y"))
    )
    assert values_of(field, adata) == [[2, 0], [0, 1], [1, 0], [0, 1], [1, 0], [2, 1]]
    assert Categories("categorical").read(adata, CategoriesRecord(), None) is None


def test_numbers_are_in_single_precision_and_absent_without_keys() -> None:
    columns = {
        "age": [1, 2, 3, 4, 5, 6],
        "half": np.arange(6) / 2,
        "yes": [True, False] * 3,
        "nullable": pd.array([1.5] * 6, dtype="Float64"),
    }
    adata = with_columns(columns)
    field = Numbers("continuous", ("half", "age", "yes", "nullable"))
    column = field.read(adata, field.describe(adata), None)
    assert column is not None
    taken = column.take(torch.tensor([5, 0, 5]))
    assert taken.dtype is torch.float32
    assert taken.tolist() == [[2.5, 6, 0, 1.5], [0, 1, 1, 1.5], [2.5, 6, 0, 1.5]]
    assert Numbers("continuous").read(adata, NumbersRecord(), None) is None


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["a", None, "b", "a", None, "b"]),
        ["a", None, "b", "a", np.nan, "b"],
        [1.0, np.nan, 2.0, 1.0, np.nan, 2.0],
        pd.array([1, None, 2, 1, None, 2], dtype="Int64"),
    ],
    ids=["categories", "text", "numbers", "nullable"],
)
def test_missing_values_are_refused_naming_the_cells(values: object) -> None:
    adata = with_columns({"kind": values})
    expected = r"adata.obs\['kind'\]; got 2 missing, in cells 'cell-1', 'cell-4'"
    with pytest.raises(InvalidDataError, match=expected):
        Category("batch", "kind").describe(adata)
    if pd.api.types.is_numeric_dtype(adata.obs["kind"].dtype):
        with pytest.raises(InvalidDataError, match=expected):
            Numbers("size_factor", ("kind",)).describe(adata)


@pytest.mark.parametrize(
    ("values", "positive", "message"),
    [
        (
            [1, 2, np.inf, 4, -np.inf, 6],
            False,
            r"finite numbers .*2 others \(inf, -inf\) in cells 'cell-2', 'cell-4'",
        ),
        ([1e39, 2, 3, 4, 5, 6], False, r"finite numbers .*1 other \(inf\) in cells 'cell-0'"),
        ([1, 0, 3, -2, 5, 6], True, r"above 0 .*2 others \(0, -2\) in cells 'cell-1', 'cell-3'"),
        ([1, 1e-60, 3, 2, 5, 6], True, r"above 0 .*1 other \(0\) in cells 'cell-1'"),
        (
            list("abcdef"),
            False,
            r"got values of type .* first 'a' in cell 'cell-0'\. Convert .*"
            r"astype\(float\)",
        ),
        (pd.Categorical([1, 2] * 3), False, "got values of type category, first 1 in cell"),
        ([1j] * 6, False, "got values of type complex128"),
    ],
    ids=["infinite", "too large", "not above 0", "too small", "text", "categories", "complex"],
)
def test_numbers_that_cannot_be_used_are_refused_naming_the_cells(
    values: object, positive: bool, message: str
) -> None:
    adata = with_columns({"age": values})
    with pytest.raises(InvalidDataError, match=message):
        Numbers("continuous", ("age",), positive).describe(adata)


def test_unknown_categories_are_refused_naming_them_and_the_known() -> None:
    record = CategoryRecord(key="kind", categories=("late", "early"))
    adata = with_columns({"kind": ["early", "lat", "early", "new", "lat", "late"]})
    expected = (
        r"adata.obs\['kind'\] \('late', 'early'\); got 'lat', 'new' in 3 cells\. "
        r"Did you mean 'late'\?"
    )
    with pytest.raises(DataMismatchError, match=expected):
        values_of(Category("batch", "kind"), adata, record)


def test_categories_that_look_alike_but_differ_in_type_are_told_apart() -> None:
    adata = with_columns({"kind": ["1", "2"] * 3})
    record = CategoryRecord(key="kind", categories=(1, 2))
    with pytest.raises(DataMismatchError, match=r"\('1', '2' as int\); got '1', '2' as str"):
        Category("batch", "kind").read(adata, record, None)


def test_unknown_columns_and_layers_are_refused_with_the_closest() -> None:
    adata = with_columns({"donor_id": list("abcdef"), "age": range(6)})
    adata.layers["counts"] = adata.X
    message = r"got 'donorid'\. Did you mean 'donor_id'\? The columns are 'donor_id', 'age'"
    for field in (
        Category("batch", "donorid"),
        Categories("c", ("donorid",)),
        Numbers("n", ("donorid",)),
    ):
        with pytest.raises(UnknownKeyError, match=message):
            field.describe(adata)
    with pytest.raises(UnknownKeyError, match=r"got 'count'\. Did you mean 'counts'\?"):
        Counts(layer="count").describe(adata)
    with pytest.raises(UnknownKeyError, match=r"got 'zzz'\. The columns are"):
        Category("batch", "zzz").describe(adata)


def test_two_columns_of_one_name_are_refused() -> None:
    adata = with_columns({"a": range(6), "b": range(6)})
    adata.obs.columns = ["a", "a"]
    with pytest.raises(InvalidDataError, match="one column 'a' in adata.obs; got 2"):
        Category("batch", "a").describe(adata)


def test_a_field_is_made_again_from_its_record() -> None:
    adata = with_columns({"a": list("xyxyxy"), "n": np.arange(1, 7)})
    fields = count_fields(
        CountKeys(
            batch_key="a",
            size_factor_key="n",
            categorical_covariate_keys=("a",),
            continuous_covariate_keys=("n",),
        )
    )
    for field in fields:
        assert field.describe(adata).field(field.name) == field
    assert [field.name for field in fields] == [
        "counts",
        "batch",
        "labels",
        "size_factor",
        "categorical",
        "continuous",
    ]
