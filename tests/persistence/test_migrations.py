from __future__ import annotations

from typing import Any

import pytest

from cellvae.errors import FileFormatError
from cellvae.persistence.migrations import MIGRATIONS, RECORD_FORMAT, Fields, migrate


def rename(fields: Fields) -> Fields:
    fields["settings"] = fields.pop("config")
    return fields


def double(fields: Fields) -> Fields:
    return {**fields, "settings": {"n": 2 * fields["settings"]["n"]}}


MADE_UP = {1: rename, 2: double}


def test_every_older_format_has_its_migration() -> None:
    assert sorted(MIGRATIONS) == list(range(1, RECORD_FORMAT))


def test_migrations_run_in_order_from_the_format_of_the_file() -> None:
    old = {"format": 1, "config": {"n": 3}}
    got = migrate(old, "model.json", migrations=MADE_UP, newest=3)
    assert got == {"format": 3, "settings": {"n": 6}}
    assert old == {"format": 1, "config": {"n": 3}}
    middle = {"format": 2, "settings": {"n": 3}}
    assert migrate(middle, "model.json", migrations=MADE_UP, newest=3) == got


def test_the_newest_format_is_left_as_it_is() -> None:
    fields = {"format": 3, "settings": {"n": 3}}
    assert migrate(fields, "model.json", migrations=MADE_UP, newest=3) == fields


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2.1.0", r'format 9, written by cellvae 2.1.0. Upgrade with: .* "cellvae>=2.1.0"$'),
        ("1; rm -rf ~", "written by a later version of cellvae. .* --upgrade cellvae$"),
        (None, "written by a later version of cellvae. .* --upgrade cellvae$"),
    ],
)
def test_a_newer_format_says_what_to_install(version: Any, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        migrate({"format": 9, "library_version": version}, "model.json")


@pytest.mark.parametrize("number", [0, -1])
def test_a_format_that_never_was_is_refused(number: int) -> None:
    with pytest.raises(FileFormatError, match=f"from 1 to 3 in m.json; got {number}"):
        migrate({"format": number}, "m.json", migrations=MADE_UP, newest=3)


@pytest.mark.parametrize("number", [True, 1.0, "1", None, [1]])
def test_a_format_that_is_no_whole_number_is_refused(number: Any) -> None:
    with pytest.raises(FileFormatError, match="whole number for 'format' in m.json"):
        migrate({"format": number}, "m.json")


def test_a_missing_format_is_refused() -> None:
    with pytest.raises(FileFormatError, match="'format' in m.json; got no such key"):
        migrate({}, "m.json")


def test_a_damaged_older_record_is_told_from_a_bug() -> None:
    with pytest.raises(FileFormatError, match="format 1 in m.json; .* KeyError: 'config'"):
        migrate({"format": 1}, "m.json", migrations=MADE_UP, newest=3)
