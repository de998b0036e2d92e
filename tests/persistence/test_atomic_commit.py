from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvae.errors import CellvaeWarning, FileFormatError
from cellvae.persistence.record import Record
from cellvae.persistence.store import SavedFiles, open_saved, save_model_files

STEPS = [
    (os, "mkdir"),
    (os, "rename"),
    (os, "replace"),
    (os, "rmdir"),
    (os, "unlink"),
    (os, "fsync"),
    (shutil, "rmtree"),
]


class Cut(BaseException):
    """The end of the process: nothing that is called afterwards has any effect."""


@contextmanager
def cut_after(n_steps: int) -> Iterator[None]:
    """Let `n_steps` changes of the disk happen, and none of those that follow."""
    done = 0

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done >= n_steps:
                raise Cut
            done += 1
            return real(*arguments, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        for module, name in STEPS:
            patch.setattr(module, name, guarded(getattr(module, name)))
        yield


@contextmanager
def failing_at(name: str, call: int) -> Iterator[None]:
    """Let one call of a function of `os` fail, and the process go on."""
    real, calls = getattr(os, name), 0

    def step(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.EIO, "the disk is on strike", str(arguments[0]))
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, step)
        yield


@pytest.fixture
def store(record: Record) -> Callable[..., Path]:
    """Save a model that has the number k in every file of it."""

    def run(folder: Path, k: int, **options: Any) -> Path:
        def write_adata(path: Path) -> None:
            path.write_text(f"data {k}")

        return save_model_files(
            folder,
            dataclasses.replace(record, config={"k": k}),
            {"w": torch.full((50,), float(k)), "b": torch.full((k + 1,), float(k))},
            {"train": torch.full((5,), k)},
            write_adata=write_adata,
            **options,
        )

    return run


def number(saved: SavedFiles) -> int:
    """The number k of a model, which every file must agree on."""
    k = saved.record.config["k"]
    tensors = saved.tensors()
    adata = saved.adata_path()
    assert adata is not None
    assert tensors["w"].tolist() == [float(k)] * 50
    assert tensors["b"].tolist() == [float(k)] * (k + 1)
    assert saved.cells()["train"].tolist() == [k] * 5
    assert adata.read_text() == f"data {k}"
    return k


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("prefix", "can_write"), [("", True), ("a_", False)], ids=["writable", "read-only"]
)
def test_a_cut_at_any_step_of_an_overwrite_leaves_the_old_or_the_new_model(
    tmp_path: Path, store: Callable[..., Path], prefix: str, can_write: bool
) -> None:
    found = []
    for n_steps in range(1000):
        folder = tmp_path / str(n_steps)
        store(folder, 1, prefix=prefix)
        (folder / "figure.png").write_text("mine")
        try:
            with cut_after(n_steps):
                store(folder, 2, prefix=prefix, overwrite=True)
        except Cut:
            finished = False
        else:
            finished = True
        before = sorted(folder.rglob("*"))
        with failing_at("replace", 1 if not can_write else -1):
            found.append(number(open_saved(folder, prefix)))
        if not can_write:
            assert sorted(folder.rglob("*")) == before
        assert number(open_saved(folder, prefix)) == found[-1]
        assert f".{prefix}model.incoming" not in hidden(folder)
        assert (folder / "figure.png").read_text() == "mine"
        store(folder, 3, prefix=prefix, overwrite=True)
        assert number(open_saved(folder, prefix)) == 3
        if finished:
            break
    assert found == sorted(found)
    # Steps before the commit, and at least a move of each of four files after it.
    assert found.count(1) >= 5
    assert found.count(2) >= 5


def test_a_cut_at_any_step_of_a_first_save_leaves_no_model_or_a_complete_one(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    found = []
    for n_steps in range(1000):
        folder = tmp_path / str(n_steps) / "deep"
        try:
            with cut_after(n_steps):
                store(folder, 2)
        except Cut:
            finished = False
        else:
            finished = True
        try:
            found.append(number(open_saved(folder)))
        except (FileNotFoundError, FileFormatError) as error:
            assert "there is no" in str(error) or "holds nothing" in str(error)
            found.append(0)
            store(folder, 3)
            assert number(open_saved(folder)) == 3
        if finished:
            break
    assert found == sorted(found)
    assert set(found) == {0, 2}


def test_a_cut_while_repairing_a_cut_loses_nothing(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    store(tmp_path / "m", 1)
    with pytest.raises(Cut), cut_after(12):
        store(tmp_path / "m", 2, overwrite=True)
    assert hidden(tmp_path / "m") == [".model.incoming"]
    for n_steps in range(10):
        with cut_after(n_steps):
            try:
                assert number(open_saved(tmp_path / "m")) == 2
            except Cut:
                continue
        break
    assert 1 < n_steps < 9
    assert hidden(tmp_path / "m") == []


@pytest.mark.parametrize(
    ("name", "call"),
    [("mkdir", 2), ("rename", 1), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4)],
)
def test_a_failing_disk_before_the_commit_leaves_the_old_model_and_no_litter(
    tmp_path: Path, store: Callable[..., Path], name: str, call: int
) -> None:
    folder = store(tmp_path / "m", 1)
    with failing_at(name, call), pytest.raises(OSError, match="on strike") as caught:
        store(folder, 2, overwrite=True)
    assert "not saved" in caught.value.__notes__[0]
    assert number(open_saved(folder)) == 1
    assert hidden(folder) == []


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_failing_disk_after_the_commit_is_a_warning_and_the_new_model(
    tmp_path: Path, store: Callable[..., Path], call: int
) -> None:
    folder = store(tmp_path / "m", 1)
    with failing_at("replace", call), pytest.warns(CellvaeWarning, match="on strike") as caught:
        store(folder, 2, overwrite=True)
    assert "can be loaded" in str(caught[0].message)
    assert hidden(folder) == [".model.incoming"]
    assert number(open_saved(folder)) == 2
    assert hidden(folder) == []


def test_a_failing_first_save_takes_away_the_folders_it_made(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    with failing_at("rename", 1), pytest.raises(OSError, match="on strike"):
        store(tmp_path / "a" / "b" / "c", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_words_of_the_system_and_the_old_model(
    tmp_path: Path, store: Callable[..., Path], record: Record
) -> None:
    def write_adata(path: Path) -> None:
        path.write_bytes(b"half of the da")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    folder = store(tmp_path / "m", 1)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_model_files(folder, record, {}, overwrite=True, write_adata=write_adata)
    assert caught.value.errno == errno.ENOSPC
    assert number(open_saved(folder)) == 1
    assert hidden(folder) == []


def test_an_interrupt_while_data_are_written_leaves_nothing_behind(
    tmp_path: Path, record: Record
) -> None:
    def write_adata(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_model_files(tmp_path / "m", record, {"w": torch.zeros(3)}, write_adata=write_adata)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    folder = store(tmp_path / "m", 1)
    for name in (".model.saving-old", ".model.saving-new", ".a_model.saving-old"):
        (folder / name).mkdir()
        (folder / name / "adata.h5ad").write_text("half")
        age = 2 * 24 * 3600 if name.endswith("old") else 3600
        os.utime(folder / name, (time.time() - age, time.time() - age))
    store(folder, 2, overwrite=True)
    assert sorted(hidden(folder)) == [".a_model.saving-old", ".model.saving-new"]


def test_files_are_not_moved_out_of_a_folder_that_a_link_leads_to(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    other = store(tmp_path / "other", 1)
    folder = store(tmp_path / "m", 2)
    (folder / ".model.incoming").symlink_to(other)
    with pytest.raises(OSError, match="not saved|Not a directory|exists"):
        store(folder, 3, overwrite=True)
    assert number(open_saved(other)) == 1


def test_readers_beside_a_writer_see_whole_models_only(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    folder = store(tmp_path / "m", 0)
    seen: list[int] = []
    odd: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                saved = open_saved(folder)
                k = saved.record.config["k"]
                assert saved.tensors()["w"].tolist() == [float(k)] * 50
                seen.append(k)
            except FileFormatError as error:
                # Opened before a save and read after it: refused, never mixed.
                if "since this one was opened" not in str(error):
                    odd.append(error)
            except BaseException as error:
                odd.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for k in range(1, 21):
        store(folder, k, overwrite=True)
    done.set()
    for reader in readers:
        reader.join()
    assert odd == []
    assert len(seen) > 5
    assert len(set(seen)) > 2
    assert seen[-1] > seen[0]
    assert number(open_saved(folder)) == 20
    assert hidden(folder) == []


def test_writers_at_the_same_time_leave_one_whole_model(
    tmp_path: Path, store: Callable[..., Path]
) -> None:
    folder = store(tmp_path / "m", 0)
    odd: list[BaseException] = []
    start = threading.Barrier(4)

    def write(first: int) -> None:
        start.wait()
        try:
            for k in range(first, first + 5):
                store(folder, k, overwrite=True)
        except BaseException as error:
            odd.append(error)

    writers = [threading.Thread(target=write, args=(10 * i,)) for i in range(1, 5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert odd == []
    assert number(open_saved(folder)) in {14, 24, 34, 44}
    assert hidden(folder) == []
