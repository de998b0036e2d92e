"""Options that are checked against their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import numpy as np
import pytest

from cellvae.core.annotations import describe_annotation
from cellvae.core.options import (
    Options,
    check_arguments,
    check_kwargs,
    check_value,
    from_kwargs,
    option,
)
from cellvae.errors import InvalidOptionError, UnknownOptionError


@dataclass(frozen=True, kw_only=True)
class Oven(Options):
    """Options with a field of every kind."""

    heat: float = option(180.0, above=0, at_most=300)
    minutes: int | None = option(None, at_least=1)
    mode: Literal["grill", "fan"] = "fan"
    light: bool = False
    name: str = "oven"
    racks: int | str | list[int] | tuple[int] = 2
    cake: Mapping[str, Any] | None = None
    timer: Callable[[], int] | None = None
    level: int | Literal["auto"] | None = option("auto", at_least=0)
    share: float = option(0.5, at_least=0, at_most=1)
    other: Any = None


def test_defaults_and_fitting_values_are_kept() -> None:
    oven = Oven(heat=200.5, minutes=3, mode="grill", racks=[1, 2], cake={"eggs": 3}, level=0)
    assert (oven.heat, oven.minutes, oven.mode, oven.light) == (200.5, 3, "grill", False)
    assert (oven.racks, oven.cake, oven.level) == ([1, 2], {"eggs": 3}, 0)
    assert Oven(timer=int).timer is int
    assert Oven(level=None).level is None


@pytest.mark.parametrize(
    ("word", "given", "kept"),
    [
        ("heat", 200, 200.0),
        ("heat", np.float32(0.5), 0.5),
        ("heat", np.int16(7), 7.0),
        ("minutes", np.int64(3), 3),
        ("minutes", 10.0, 10),
        ("minutes", np.float32(4), 4),
        ("racks", [1.0, np.int64(2)], [1, 2]),
        ("light", np.True_, True),
        ("mode", np.str_("grill"), "grill"),
        ("share", 1, 1.0),
        ("share", 0, 0.0),
    ],
)
def test_values_of_numpy_become_those_of_python(word: str, given: Any, kept: Any) -> None:
    value = getattr(Oven(**{word: given}), word)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        ("heat", 0, "heat to be above 0 and at most 300; got 0.0"),
        ("heat", 301, "at most 300; got 301.0"),
        ("heat", float("nan"), "above 0 and at most 300 and finite; got nan"),
        ("heat", float("inf"), "finite; got inf"),
        ("heat", 10**400, "heat to be a number; got an integer of 1329 bits, which is too large"),
        ("minutes", 10**400, "an integer of 1329 bits, which is too large"),
        pytest.param("minutes", 10**5000, "of 16610 bits, which is too large", id="long"),
        ("racks", ["a", 10**5000], "got list with an integer of more than 4,300 digits"),
        ("heat", True, "heat to be a number; got True"),
        ("heat", np.True_, "heat to be a number; got np.True_"),
        ("heat", "hot", "heat to be a number; got 'hot'"),
        ("heat", None, "heat to be a number; got None"),
        ("minutes", 0, "minutes to be at least 1; got 0"),
        ("minutes", 1.5, "minutes to be a whole number or None; got 1.5"),
        ("minutes", True, "minutes to be a whole number or None; got True"),
        ("mode", "gril", "mode to be 'grill' or 'fan'; got 'gril'. Did you mean 'grill'?"),
        ("mode", 1, "mode to be 'grill' or 'fan'; got 1."),
        ("mode", np.array(["grill", "fan"]), "mode to be 'grill' or 'fan'; got array"),
        ("light", 1, "light to be True or False; got 1"),
        ("name", b"x", "name to be a string; got b'x'"),
        (
            "racks",
            1.5,
            "racks to be a whole number, a string, a list of whole numbers or a tuple "
            "of whole numbers; got 1.5",
        ),
        ("racks", ["a"], "a list of whole numbers or a tuple of whole numbers; got"),
        ("cake", ["eggs"], "cake to be a dictionary or None; got ['eggs']"),
        ("timer", 3, "timer to be a function or None; got 3"),
        (
            "level",
            "atuo",
            "level to be a whole number, 'auto' or None; got 'atuo'. Did you mean 'auto'?",
        ),
        ("level", -1, "level to be at least 0; got -1"),
        ("share", 1.01, "share to be at least 0 and at most 1; got 1.01"),
        ("name", list(range(1000)), "name to be a string; got [0, 1, 2, 3"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_what_would(
    word: str, value: Any, message: str
) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        Oven(**{word: value})
    assert str(caught.value).startswith("Expected ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250


def test_every_error_is_the_builtin_one_too() -> None:
    with pytest.raises(ValueError, match="minutes"):
        Oven(minutes=0)
    with pytest.raises(TypeError, match="'heet'"):
        from_kwargs(Oven, {"heet": 1}, "oven()")


def test_options_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Oven().heat = 3  # type: ignore[misc]


def test_options_are_made_from_the_words_of_a_caller() -> None:
    assert from_kwargs(Oven, {"heat": 90}, "oven()") == Oven(heat=90.0)
    with pytest.raises(UnknownOptionError) as caught:
        from_kwargs(Oven, {"heta": 90}, "oven()")
    assert str(caught.value) == "oven() has no option 'heta'. Did you mean 'heat'?"


def test_known_words_are_listed_where_none_is_close() -> None:
    check_kwargs({"a": 1}, ["a", "b"], "f()")
    with pytest.raises(UnknownOptionError) as caught:
        check_kwargs(["zzz"], ["beta", "alpha"], "f()")
    assert str(caught.value) == "f() has no option 'zzz'. It has: alpha, beta."


def test_one_value_can_be_checked_alone() -> None:
    assert check_value("n", np.int8(4), int, {"at_least": 4}) == 4
    with pytest.raises(InvalidOptionError, match="n to be at least 5; got 4"):
        check_value("n", 4, int, {"at_least": 5})


def test_annotations_are_described_in_words() -> None:
    assert describe_annotation(int | None) == "a whole number or None"
    assert describe_annotation(Literal["a", "b"] | float) == "'a', 'b' or a number"
    assert (
        describe_annotation(list[int] | dict[str, int])
        == "a list of whole numbers or a dictionary from strings to whole numbers"
    )


def test_arguments_of_functions_are_checked_and_converted() -> None:
    @check_arguments()
    def bake(
        cakes: Sequence[str] | str, minutes: int = 3, *, weights: Mapping[str, float] | None = None
    ) -> tuple[Any, ...]:
        return cakes, minutes, weights

    assert bake("plum", 4.0, weights={"plum": np.float32(2)}) == ("plum", 4, {"plum": 2.0})
    with pytest.raises(InvalidOptionError, match="a sequence of strings or a string; got"):
        bake(cakes=[1])
    with pytest.raises(InvalidOptionError, match="minutes to be a whole number; got '4'"):
        bake("plum", minutes="4")
    with pytest.raises(InvalidOptionError, match="weights"):
        bake("plum", weights={"plum": "heavy"})
    assert str(inspect.signature(bake)).startswith("(cakes: ")


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (("a", "b"), tuple[float, ...] | None, "a tuple of numbers or None; got ('a', 'b')"),
        ([1, 2], str | Sequence[str], "a string or a sequence of strings; got [1, 2]"),
        ({"a"}, set[int], "a set of whole numbers; got {'a'}"),
        ({"a": "b"}, dict[str, float], "a dictionary from strings to numbers; got {'a': 'b'}"),
        ({1: "b"}, Mapping[int, float] | None, "whole numbers to numbers or None; got {1: 'b'}"),
    ],
)
def test_elements_of_containers_are_checked(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        check_value("x", value, hint)
    assert message in str(caught.value)
