from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellvae.errors import FileFormatError, InvalidOptionError, UnsafeFileError
from cellvae.persistence.record import MAX_RECORD_BYTES, FileRecord, Record, read_record

DIGITS = "0123456789abcdef" * 4


@pytest.fixture
def full(record: Record) -> Record:
    files = {
        "weights.safetensors": FileRecord(n_bytes=12, sha256=DIGITS),
        "adata.h5ad": FileRecord(n_bytes=10**11, sha256=None),
    }
    return dataclasses.replace(record, files=files)


@pytest.fixture
def edited(full: Record) -> Callable[..., str]:
    def edit(**fields: Any) -> str:
        got = {**json.loads(full.to_json()), **fields}
        return json.dumps({key: value for key, value in got.items() if value is not ...})

    return edit


def test_a_record_survives_the_round_trip(full: Record) -> None:
    back = Record.from_json(full.to_json())
    assert np.isnan(back.history["elbo_train"][2])
    back.history["elbo_train"][2] = full.history["elbo_train"][2]
    assert back == full
    assert back.history["elbo_train"][1] == 1 / 3
    assert back.versions == {"torch": "2.4.0", "float": "1"}


def test_the_text_is_stable_readable_and_ends_in_a_newline(full: Record) -> None:
    text = full.to_json()
    assert text == full.to_json() == Record.from_json(text).to_json()
    assert text.startswith('{\n  "format": 2,\n  "model": "SCVI",\n')
    assert text.endswith("}\n")
    assert "Müller ☃" in text


def test_an_array_in_a_field_is_refused_with_its_place(record: Record) -> None:
    odd = dataclasses.replace(record, training={"report": {"losses": np.zeros(2)}})
    with pytest.raises(InvalidOptionError, match=r"ndarray at 'training\.report\.losses'"):
        odd.to_json()


def test_an_unknown_key_is_refused(edited: Callable[..., str]) -> None:
    with pytest.raises(FileFormatError, match="no more entries in m.json; got 'command'"):
        Record.from_json(edited(command="rm"), "m.json")


def test_a_misspelt_key_is_shown(edited: Callable[..., str]) -> None:
    text = edited(history=..., historic={})
    with pytest.raises(
        FileFormatError, match="Expected an entry 'history' in m.json; got .*'historic'"
    ):
        Record.from_json(text, "m.json")


@pytest.mark.parametrize(
    "key", [field.name for field in dataclasses.fields(Record) if field.name != "format"]
)
def test_a_missing_key_and_a_wrong_type_are_named(edited: Callable[..., str], key: str) -> None:
    with pytest.raises(FileFormatError, match=f"Expected an entry '{key}' in m.json"):
        Record.from_json(edited(**{key: ...}), "m.json")
    wrong: Any
    for wrong in (None, 1.5, [], True):
        with pytest.raises(FileFormatError, match=f"in m.json: {key}; got "):
            Record.from_json(edited(**{key: wrong}), "m.json")


@pytest.mark.parametrize("text", ["[]", "1", '"model"', "null", "true"])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(FileFormatError, match="an object in m.json; got "):
        Record.from_json(text, "m.json")


def test_versions_are_text(edited: Callable[..., str]) -> None:
    with pytest.raises(FileFormatError, match="a string in m.json: versions.torch; got 2"):
        Record.from_json(edited(versions={"torch": 2}), "m.json")


def test_a_newer_format_wins_over_unknown_keys(edited: Callable[..., str]) -> None:
    text = edited(format=3, library_version="3.0", surprise=1)
    with pytest.raises(FileFormatError, match="written by cellvae 3.0"):
        Record.from_json(text, "m.json")


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "", "/etc/passwd", "a/b", "..\\x", "C:x", "a\0b", "x\n", "sub/../../x"],
)
def test_names_of_files_that_lead_elsewhere_are_unsafe(
    edited: Callable[..., str], name: str
) -> None:
    text = edited(files={name: {"bytes": 1, "sha256": DIGITS}})
    with pytest.raises(UnsafeFileError, match="which may lead elsewhere"):
        Record.from_json(text, "m.json")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "an object in m.json: files.w; got 3"),
        ({"bytes": 1}, "an entry 'sha256' in m.json: files.w"),
        (
            {"bytes": 1, "sha256": DIGITS, "url": ""},
            "no more entries in m.json: files.w; got 'url'",
        ),
        ({"bytes": True, "sha256": DIGITS}, "files.w.bytes; got True"),
        ({"bytes": -1, "sha256": DIGITS}, "got -1"),
        ({"bytes": 1, "sha256": "abc"}, "64 hexadecimal"),
        ({"bytes": 1, "sha256": DIGITS.upper()}, "64 hexadecimal"),
        ({"bytes": 1, "sha256": DIGITS + "\n"}, "64 hexadecimal"),
        ({"bytes": 1, "sha256": 5}, "64 hexadecimal"),
    ],
)
def test_entries_of_files_are_checked(edited: Callable[..., str], entry: Any, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        Record.from_json(edited(files={"w": entry}), "m.json")


def test_a_file_too_large_for_a_record_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    with path.open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 1)
    with pytest.raises(UnsafeFileError, match="at most 268,435,456 bytes in .*; got 268,435,457"):
        read_record(path)


@pytest.mark.parametrize("content", [b'{"a": "\xff"}', "{}".encode("utf-16")])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="UTF-8 in .*model.json"):
        read_record(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.touch()
    with pytest.raises(FileFormatError, match="strict JSON in .*model.json"):
        read_record(path)
