"""Compiled code on disk: found again for the same sources, never used for others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numba import carray, config, types

from cellvae.kernels import kernel_cache
from cellvae.kernels.dispatch import Kernel, compile_kernels
from cellvae.kernels.kernel_cache import (
    candidate_folders,
    compile_kernel,
    find_cache_folder,
    hash_sources,
)

ROOT = Path(__file__).resolve().parents[2]

# Log2 of the ratio 4, by a kernel that inlines functions of vector_math_numba.
FOLD_CHANGE = """
import json, torch
from cellvae.kernels import log_fold_change_summary
from cellvae.kernels.compiled.log_fold_change_summary_numba import log_fold_change_summary_kernel

torch.set_num_threads(1)
result = log_fold_change_summary(torch.full((5, 1), 0.4), torch.full((5, 1), 0.1), 1e-10, 1.0)
kernel = log_fold_change_summary_kernel
print(json.dumps([result.mean.item(), kernel.cache_hits, kernel._cache.cache_path]))
"""


def fold_change(source: Path) -> tuple[float, int, Path]:
    """Mean log fold change by a copy of the package, cache hits, and folder of compiled code."""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", FOLD_CHANGE],
        env=environment | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    mean, hits, folder = json.loads(done.stdout)
    return mean, hits, Path(folder)


@pytest.mark.slow
def test_an_edited_helper_is_recompiled_in_every_kernel_that_inlines_it(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src" / "cellvae",
        tmp_path / "cellvae",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    first, hits, folder = fold_change(tmp_path)
    assert first == pytest.approx(2.0, rel=1e-6)
    assert hits == 0
    assert folder.is_relative_to(tmp_path)

    assert fold_change(tmp_path) == (first, 1, folder)

    helper = tmp_path / "cellvae" / "kernels" / "compiled" / "functions" / "vector_math_numba.py"
    text = helper.read_text()
    assert text.count("LOG2_E = f32(1 / math.log(2))") == 1
    # numba's own cache would compare size and time, or the contents, of the kernel's file alone.
    helper.write_text(text.replace("f32(1 / math.log(2))", "f32(3 / math.log(2))"))

    second, hits, new_folder = fold_change(tmp_path)
    assert second == pytest.approx(6.0, rel=1e-6)
    assert hits == 0
    assert new_folder != folder
    assert not folder.exists()
    assert new_folder.parent == folder.parent


def test_the_hash_covers_names_and_contents_of_all_sources(tmp_path: Path) -> None:
    hashes = set()
    for contents in ({"a.py": "1"}, {"a.py": "2"}, {"b.py": "2"}, {"a.py": "", "b.py": "2"}):
        folder = tmp_path / str(len(hashes))
        folder.mkdir()
        for name, text in contents.items():
            (folder / name).write_text(text)
        (folder / "notes.txt").write_text(str(folder))
        hashes.add(hash_sources(folder))
    assert len(hashes) == 4


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Two folders that compiled code may lie in, neither of which exists."""
    folders = [tmp_path / "package", tmp_path / "user" / "cache"]
    monkeypatch.setattr(kernel_cache, "candidate_folders", lambda: folders)
    find_cache_folder.cache_clear()
    yield folders
    find_cache_folder.cache_clear()


def test_where_the_package_cannot_be_written_the_folder_of_the_user_is_used(
    folders: list[Path],
) -> None:
    # A file is in the way, which stops root too.
    folders[0].write_text("")
    found = find_cache_folder()
    assert found == folders[1] / f"kernels-{hash_sources()}"
    assert found.is_dir()


def test_code_of_other_sources_is_removed_and_files_of_others_are_not(folders: list[Path]) -> None:
    outdated, other = folders[0] / "kernels-0123456789abcdef", folders[0] / "module.pyc"
    outdated.mkdir(parents=True)
    (outdated / "kernel.nbi").write_text("")
    other.write_text("")
    find_cache_folder()
    assert not outdated.exists()
    assert other.exists()


def add_one(job: Any) -> None:
    fields = carray(job, 1, types.int64)
    fields[0] += 1


@pytest.mark.usefixtures("folders")
def test_a_kernel_is_compiled_once_and_loaded_afterwards() -> None:
    job = np.array([41])
    for expected_hits in (0, 1):
        kernel = compile_kernel(add_one)
        assert kernel.cache_hits == expected_hits
        kernel.ctypes(job.ctypes.data)
    assert job[0] == 43


@pytest.mark.usefixtures("folders")
def test_a_kernel_that_cannot_be_stored_runs_all_the_same() -> None:
    folder = find_cache_folder()
    shutil.rmtree(folder)
    folder.write_text("")
    job = np.array([1])
    kernel = compile_kernel(add_one)
    kernel.ctypes(job.ctypes.data)
    assert job[0] == 2
    assert kernel.cache_hits == 0


@pytest.mark.usefixtures("folders")
def test_a_folder_that_another_process_removed_is_made_again() -> None:
    folder = find_cache_folder()
    # What a process does that starts after the sources were edited.
    shutil.rmtree(folder)
    assert [compile_kernel(add_one).cache_hits for _ in range(2)] == [0, 1]


def test_without_a_folder_that_can_be_written_there_are_no_kernels(folders: list[Path]) -> None:
    for folder in folders:
        folder.parent.mkdir(exist_ok=True)
        folder.write_text("")
    with pytest.raises(RuntimeError, match="cannot cache function"):
        compile_kernel(add_one)


def test_the_folder_that_a_user_gives_to_numba_is_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    without = candidate_folders()
    assert without[0] == kernel_cache.SOURCE_FOLDER / "__pycache__"
    assert without[1].is_relative_to(Path.home()) or os.environ.get("XDG_CACHE_HOME")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    first, *others = candidate_folders()
    assert first.parent == tmp_path
    assert others == without


@pytest.mark.slow
def test_all_kernels_are_compiled_by_processes() -> None:
    assert compile_kernels(n_processes=2) == dict.fromkeys(get_args(Kernel), True)


@pytest.mark.parametrize("interactive", [True, False])
def test_the_wait_for_the_first_compilation_is_announced_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, interactive: bool
) -> None:
    monkeypatch.setattr(kernel_cache, "is_interactive", lambda: interactive)
    kernel_cache.announce_compilation.cache_clear()
    for _ in range(2):
        kernel_cache.announce_compilation()
    assert len(caplog.messages) == interactive
    assert all("cellvae compile-kernels" in message for message in caplog.messages)
