"""Records of fields: through JSON and back, and nothing else accepted."""

from __future__ import annotations

import json

import pytest

from cellvae.data.records import (
    CategoriesRecord,
    CategoryRecord,
    CountsRecord,
    FieldRecord,
    NumbersRecord,
    record_from_json,
)
from cellvae.errors import FileFormatError

RECORDS = [
    CountsRecord(integers=True),
    CountsRecord(layer="counts", integers=False),
    CategoryRecord(),
    CategoryRecord(key="batch", categories=("1", 1, 2.5, "x", False)),
    CategoriesRecord(),
    CategoriesRecord(keys=("a", "b"), categories=((True, False), (0.5, 7))),
    NumbersRecord(keys=("age",), positive=True),
]


def types(record: FieldRecord) -> str:
    return repr(record)


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_a_record_comes_back_from_json_with_every_type(record: FieldRecord) -> None:
    again = record_from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)), "it")
    assert again == record
    assert types(again) == types(record)  # 1, 1.0 and True are equal, but not written alike.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "Expected an object in it; got None"),
        ({"layer": None, "integers": True}, "Expected an entry 'kind' in it"),
        ({"kind": 3}, r"text in it\.kind; got 3"),
        ({"kind": "count", "integers": True}, r"it\.kind .*got 'count'\. Did you mean 'counts'\?"),
        ({"kind": "counts", "layer": None}, "Expected an entry 'integers' in it"),
        ({"kind": "counts", "layer": 3, "integers": True}, r"text or null in it\.layer; got 3"),
        ({"kind": "counts", "layer": None, "integers": 1}, r"true or false in it\.integers; got 1"),
        (
            {"kind": "counts", "layer": None, "integers": True, "extra": 1},
            "no more entries in it; got 'extra'",
        ),
        ({"kind": "category", "key": "b", "categories": "abc"}, r"a list in it\.categories"),
        ({"kind": "category", "key": "b", "categories": []}, "no two alike; got none"),
        ({"kind": "category", "key": "b", "categories": ["a", "a"]}, "no two alike; got 'a', 'a'"),
        ({"kind": "category", "key": "b", "categories": [None]}, "text, numbers or truths .*None"),
        ({"kind": "category", "key": "b", "categories": [float("nan")]}, "got nan"),
        ({"kind": "category", "key": "b", "categories": [["a"]]}, r"got \['a'\]"),
        ({"kind": "categories", "keys": ["a"], "categories": []}, "Expected 1 lists"),
        ({"kind": "categories", "keys": ["a"], "categories": ["x"]}, "Expected 1 lists"),
        ({"kind": "categories", "keys": ["a", "a"], "categories": [[1], [2]]}, "different texts"),
        ({"kind": "numbers", "keys": [1], "positive": True}, "a list of texts"),
    ],
)
def test_anything_else_is_refused_with_its_place(values: object, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        record_from_json(values, "it")
