"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellvae.core.files.output_files import replace_atomically


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_the_new_one_after_the_context_and_the_old_one_before(
    tmp_path: Path, durable: bool
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with replace_atomically(path, durable=durable) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path and temporary.name.startswith(".")
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail() -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_writers_at_the_same_time_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with replace_atomically(path) as first, replace_atomically(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert [*tmp_path.iterdir()] == [path]


def test_durable_files_are_flushed_before_they_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    with replace_atomically(tmp_path / "state", durable=True) as temporary:
        temporary.write_bytes(b"1")
    assert calls == ["fsync", "replace", "fsync"]
