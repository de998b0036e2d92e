"""Records of fields: through JSON and back, and nothing else accepted."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from cellvae.data.setup.fields import (
    CategoriesRecord,
    CategoryRecord,
    CountsRecord,
    FieldRecord,
    NumbersRecord,
    record_from_json,
)
from cellvae.errors import FileFormatError

BERLIN = pd.Timestamp("2024-10-27 00:30", tz="UTC").tz_convert("Europe/Berlin")
VALUES = (
    pd.Timestamp("2024-03-01"),
    pd.Timestamp("2024-03-01 01:02:03.000000004"),
    BERLIN,
    BERLIN + pd.Timedelta("1h"),  # the same time of day, after the clock went back
    pd.Timestamp("2024-01-01", tz=datetime.timezone(datetime.timedelta(hours=2))),
    pd.Timestamp("2023-01-01").as_unit("s"),
    pd.Timedelta(-1, unit="ns"),
    pd.Timedelta("3 days").as_unit("s"),
    pd.Period("2024-03", "M"),
    pd.Period("2024-03-05", "W-SUN"),
    pd.Interval(0, 1),
    pd.Interval(-np.inf, 3.5, "left"),
    pd.Interval(pd.Timestamp("2024"), pd.Timestamp("2025"), "both"),
    b"\x00a\x00",
    (1, "a", (2.5, b"x", True)),
    (),
    float("inf"),
    datetime.date(2024, 1, 2),
    datetime.time(3, 4, 5, 6),
    Decimal("1.10"),
)

RECORDS = [
    CountsRecord(integers=True),
    CountsRecord(layer="counts", integers=False),
    CategoryRecord(),
    CategoryRecord(key="batch", categories=("1", 1, 2.5, "x", False)),
    CategoriesRecord(),
    CategoriesRecord(keys=("a", "b"), categories=((True, False), (0.5, 7))),
    NumbersRecord(keys=("age",), positive=True),
    *(CategoryRecord(key="x", categories=(value, "rest"), unlabeled="rest") for value in VALUES),
    CategoryRecord(key="x", categories=("rest", VALUES[0]), unlabeled=VALUES[0]),
    CategoriesRecord(keys=("x",), categories=(VALUES,)),
]


def typed(value: object) -> dict[str, object]:
    """Record with a value that names its type."""
    return {"kind": "category", "key": "b", "categories": [value]}


def nested(depth: int) -> dict[str, object]:
    """Tuples inside each other."""
    value: dict[str, object] = {"type": "tuple", "value": []}
    for _ in range(depth):
        value = {"type": "tuple", "value": [value]}
    return value


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
        ({"kind": 3}, r"a string in it\.kind; got 3"),
        ({"kind": "count", "integers": True}, r"it\.kind .*got 'count'\. Did you mean 'counts'\?"),
        ({"kind": "counts", "layer": None}, "Expected an entry 'integers' in it"),
        ({"kind": "counts", "layer": 3, "integers": True}, r"a string or null in it\.layer; got 3"),
        ({"kind": "counts", "layer": None, "integers": 1}, r"true or false in it\.integers; got 1"),
        (
            {"kind": "counts", "layer": None, "integers": True, "extra": 1},
            "no more entries in it; got 'extra'",
        ),
        ({"kind": "category", "key": "b", "categories": "abc"}, r"a list in it\.categories"),
        ({"kind": "category", "key": "b", "categories": []}, "all different; got none"),
        ({"kind": "category", "key": "b", "categories": ["a", "a"]}, "all different; got 'a', 'a'"),
        (
            {"kind": "category", "key": "b", "categories": [None]},
            "booleans or objects .*None",
        ),
        ({"kind": "category", "key": "b", "categories": [float("nan")]}, "got nan"),
        ({"kind": "category", "key": "b", "categories": [["a"]]}, r"got \['a'\]"),
        (typed({"type": "date"}), "missing 1 required"),
        (typed({"type": "date", "value": 3}), "3 is not a string"),
        (typed({"type": "dates", "value": "2024-01-01"}), "a value of type 'dates'"),
        (typed({"type": ["date"], "value": "2024-01-01"}), r"a value of type \['date'\]"),
        (typed({"type": "timestamp", "value": "now", "unit": "ns"}), "is not the ISO string"),
        (
            typed({"type": "timestamp", "value": "2024-01-01T00:00:00", "unit": "h"}),
            "'h' is",
        ),
        (
            typed(
                {
                    "type": "timestamp",
                    "value": "2024-01-01T00:00:00+01:00",
                    "unit": "s",
                    "zone": "Nowhere",
                }
            ),
            "Nowhere",
        ),
        (typed({"type": "timedelta", "value": 1, "unit": "x"}), "'x' is not a unit"),
        (typed({"type": "timedelta", "value": True, "unit": "s"}), "not an integer"),
        (typed({"type": "period", "value": 1, "freq": "nothing"}), "nothing"),
        (typed({"type": "tuple", "value": "ab"}), "'ab'"),
        (typed({"type": "tuple", "value": [], "more": 1}), "'more'"),
        (typed({"type": "interval", "value": [1], "closed": "left"}), "categories"),
        (typed({"type": "interval", "value": [2, 1], "closed": "left"}), "categories"),
        (typed({"type": "decimal", "value": "x"}), "categories"),
        (typed({"type": "bytes", "value": "zz"}), "categories"),
        (typed(nested(20)), "categories"),
        ({"kind": "categories", "keys": ["a"], "categories": []}, "Expected 1 lists"),
        ({"kind": "categories", "keys": ["a"], "categories": ["x"]}, "Expected 1 lists"),
        ({"kind": "categories", "keys": ["a", "a"], "categories": [[1], [2]]}, "different strings"),
        ({"kind": "numbers", "keys": [1], "positive": True}, "a list of strings"),
    ],
)
def test_anything_else_is_refused_with_its_place(values: object, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        record_from_json(values, "it")
