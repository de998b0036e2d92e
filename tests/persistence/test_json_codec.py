from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

import numpy as np
import pytest

from cellvae.errors import FileFormatError, InvalidOptionError, UnsafeFileError
from cellvae.persistence.json_codec import MAX_DEPTH, dumps, loads


def reject(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def back(value: Any) -> Any:
    text = dumps(value)
    json.loads(text, parse_constant=reject)
    return loads(text, "here.json")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_every_bit_of_a_float_survives() -> None:
    draw = random.Random(0)
    bits = [draw.getrandbits(64) for _ in range(3000)] + [1, 1 << 63, 0x000FFFFFFFFFFFFF]
    floats = [struct.unpack("<d", struct.pack("<Q", b))[0] for b in bits]
    finite = [x for x in floats if math.isfinite(x)]
    assert len(finite) > 2900
    for got, expected in zip(back(finite), finite, strict=True):
        assert struct.pack("<d", got) == struct.pack("<d", expected)


def test_what_is_not_finite_survives_as_strict_json() -> None:
    got = back({"a": [math.nan, math.inf, -math.inf]})["a"]
    assert math.isnan(got[0])
    assert got[1:] == [math.inf, -math.inf]
    assert json.loads(dumps(math.nan)) == {"float": "nan"}


@pytest.mark.parametrize(
    "value",
    [
        {"float": "nan"},
        {"float": "-inf"},
        {"float": 1.5},
        {"float": ["nan"]},
        {"float": {"float": {"float": "inf"}}},
        {"float": {"float": ["nan"]}},
        [{"float": []}, {"float": None}, {"float": {}}],
        {"float": "nan", "other": 1},
    ],
)
def test_objects_that_look_like_the_mark_of_a_number_stay_objects(value: Any) -> None:
    assert back(value) == value


def test_plain_values_survive_with_their_types_and_order() -> None:
    value: dict[str, Any] = {
        "z": 1,
        "a": 1.0,
        "t": True,
        "n": None,
        "big": 2**70,
        "s": 'é\n"\u2028😀',
        "": [[]],
    }
    got = back(value)
    assert got == value
    assert list(got) == list(value)
    assert [type(x) for x in got.values()] == [type(x) for x in value.values()]


def test_tuples_and_numpy_floats_become_lists_and_floats() -> None:
    got = back({"hidden": (1, 2), "x": np.float64(0.1)})
    assert got == {"hidden": [1, 2], "x": 0.1}
    assert type(got["x"]) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"history": {"elbo": [0.5, np.float32(1)]}}, r"float32 at 'history\.elbo\[1\]'"),
        ({"a": {1: 2}}, "got the int 1 at 'a'"),
        ({"a": {"b": {1, 2}}}, "set at 'a.b'"),
        ({"gene": "\ud800"}, "UTF-8"),
        ({"\ud800": 1}, "UTF-8"),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        dumps(value)


def test_a_list_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidOptionError, match="contain itself"):
        dumps(value)


def test_depth_is_bounded_the_same_in_both_directions() -> None:
    assert back(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(InvalidOptionError, match="nesting"):
        dumps(nested(MAX_DEPTH + 1))
    with pytest.raises(UnsafeFileError, match="nesting in deep.json"):
        loads("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "deep.json")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_depth_bomb_is_refused_without_exhausting_the_stack(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for text in (opening * 200_000, opening * 200_000 + "1" + closing * 200_000):
        with pytest.raises(UnsafeFileError, match="nesting"):
            loads(text, "bomb.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"a": 1', "delimiter"),
        ('{"a": NaN}', "NaN, which is not JSON"),
        ("[-Infinity]", "-Infinity"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' twice"),
        ('{"float": "one"}', "none of nan"),
        ('{"float": [1, 2]}', "none of nan"),
        ("\ufeff{}", "BOM"),
        ("1" * 5000, "digits"),
        ("{} {}", "Extra data"),
    ],
)
def test_text_that_is_not_strict_json_is_refused_naming_the_file(text: str, message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        loads(text, "odd.json")
    assert "in odd.json" in str(caught.value)
