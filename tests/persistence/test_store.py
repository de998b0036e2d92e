from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cellvae.errors import FileFormatError, InvalidOptionError, UnsafeFileError
from cellvae.persistence.record import Record
from cellvae.persistence.store import open_saved, save_model_files
from cellvae.persistence.tensors import tensor_specs, write_tensors

needs_links = pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes, and few links")


@pytest.fixture
def folder(tmp_path: Path, record: Record, weights: dict[str, Tensor]) -> Path:
    cells = {"train": torch.arange(8), "validation": torch.tensor([9, 8])}
    return save_model_files(tmp_path / "m", record, weights, cells)


def change_record(folder: Path, **fields: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def replace_tensors(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """Put other tensors in a model, with a record that agrees."""
    path = folder / name
    path.unlink(missing_ok=True)
    write_tensors(path, tensors)
    files = json.loads((folder / "model.json").read_text())["files"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change_record(folder, files={**files, name: {"bytes": path.stat().st_size, "sha256": sha256}})


def test_a_saved_model_comes_back_bit_by_bit(
    folder: Path, record: Record, weights: dict[str, Tensor]
) -> None:
    saved = open_saved(folder)
    got = saved.tensors()
    assert got.keys() == weights.keys()
    for name, tensor in weights.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)
    assert dict(saved.header()) == tensor_specs(weights)
    assert {name: cells.tolist() for name, cells in saved.cells().items()} == {
        "train": list(range(8)),
        "validation": [9, 8],
    }
    assert saved.adata_path() is None
    assert saved.record.registration == record.registration
    assert repr(dataclasses.replace(saved.record, files={})) == repr(record)


def test_the_folder_holds_the_files_by_their_names_and_nothing_else(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["cells.safetensors", "model.json", "weights.safetensors"]
    files = json.loads((folder / "model.json").read_text())["files"]
    for name, file in files.items():
        content = (folder / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_saving_the_same_model_twice_gives_the_same_bytes(
    tmp_path: Path, folder: Path, weights: dict[str, Tensor]
) -> None:
    saved = open_saved(folder)
    again = save_model_files(tmp_path / "again", saved.record, saved.tensors(), saved.cells())
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_saving_changes_no_tensor(tmp_path: Path, record: Record) -> None:
    module = torch.nn.Linear(3, 3)
    state = module.state_dict()
    before = {name: (x.clone(), x.data_ptr()) for name, x in state.items()}
    save_model_files(tmp_path, record, state)
    for name, (values, pointer) in before.items():
        assert torch.equal(state[name], values)
        assert state[name].data_ptr() == pointer
    assert module.weight.requires_grad


def test_split_and_data_are_optional(tmp_path: Path, record: Record) -> None:
    saved = open_saved(save_model_files(tmp_path / "m", record, {}))
    assert saved.tensors() == {}
    assert saved.cells() == {}
    assert saved.adata_path() is None
    assert [path.name for path in (tmp_path / "m").glob("cells*")] == []


def test_folders_are_text_or_paths_with_the_home_written_out_and_parents_made(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert save_model_files("~/a/b", record, {}) == tmp_path / "a" / "b"
    assert open_saved("~/a/b").record.model == "SCVI"
    assert open_saved(str(tmp_path / "a" / "b")).folder == tmp_path / "a" / "b"
    monkeypatch.chdir(tmp_path / "a")
    save_model_files(".", record, {}, prefix="here_")
    assert Path.cwd() == tmp_path / "a"
    assert open_saved(".", "here_").record.model == "SCVI"


def test_models_with_prefixes_share_a_folder_and_leave_each_other_alone(
    tmp_path: Path, record: Record
) -> None:
    for i, prefix in enumerate(["", "a_", "b.", "a_a_"]):
        save_model_files(
            tmp_path, record, {"w": torch.tensor(i)}, {"test": torch.tensor([i])}, prefix=prefix
        )
    (tmp_path / "figure.png").write_text("mine")
    (tmp_path / "sub").mkdir()
    save_model_files(tmp_path, record, {"w": torch.tensor(10)}, prefix="a_", overwrite=True)
    got = {prefix: open_saved(tmp_path, prefix) for prefix in ("", "a_", "b.", "a_a_")}
    assert [saved.tensors()["w"].item() for saved in got.values()] == [0, 10, 2, 3]
    assert [len(saved.cells()) for saved in got.values()] == [1, 0, 1, 1]
    assert (tmp_path / "figure.png").read_text() == "mine"
    assert (tmp_path / "sub").is_dir()
    assert (tmp_path / "b.weights.safetensors").exists()


def test_a_model_renamed_to_another_prefix_still_opens(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"old_{path.name}"))
    assert open_saved(folder, "old_").cells()["validation"].tolist() == [9, 8]


@pytest.mark.parametrize("prefix", ["../", "a/b", "..\\", "/", "C:", "a\0"])
def test_prefixes_that_lead_elsewhere_are_refused(
    tmp_path: Path, record: Record, prefix: str
) -> None:
    with pytest.raises(InvalidOptionError, match="start of a file name as `prefix`"):
        save_model_files(tmp_path, record, {}, prefix=prefix)
    with pytest.raises(InvalidOptionError, match="start of a file name as `prefix`"):
        open_saved(tmp_path, prefix)


def test_a_model_is_not_overwritten_unless_asked(
    folder: Path, record: Record, weights: dict[str, Tensor]
) -> None:
    with pytest.raises(ValueError, match="'model.json', 'weights.safetensors'.*overwrite=True"):
        save_model_files(folder, record, {})
    assert open_saved(folder).tensors().keys() == weights.keys()
    save_model_files(folder, dataclasses.replace(record, model="PEAKVI"), {}, overwrite=True)
    assert open_saved(folder).record.model == "PEAKVI"
    assert open_saved(folder).cells() == {}


def test_files_of_others_with_the_same_names_are_not_overwritten_unless_asked(
    tmp_path: Path, record: Record
) -> None:
    (tmp_path / "adata.h5ad").write_text("my only copy")
    save_model_files(tmp_path, record, {})
    with pytest.raises(InvalidOptionError, match="'adata.h5ad'"):
        save_model_files(tmp_path, record, {}, prefix="", write_adata=lambda path: path.touch())
    save_model_files(tmp_path, record, {}, overwrite=True)
    assert (tmp_path / "adata.h5ad").read_text() == "my only copy"
    assert open_saved(tmp_path).adata_path() is None


def test_data_are_written_by_the_caller_and_checked_when_asked_for(
    tmp_path: Path, record: Record
) -> None:
    def write_adata(path: Path) -> None:
        path.write_text("cells")

    folder = save_model_files(tmp_path, record, {}, write_adata=write_adata)
    path = open_saved(folder).adata_path()
    assert path == tmp_path / "adata.h5ad"
    assert path.read_text() == "cells"
    path.write_text("other")
    saved = open_saved(folder)
    with pytest.raises(FileFormatError, match=r"bytes of .*adata\.h5ad that model\.json has"):
        saved.adata_path()
    path.write_text("cut")
    with pytest.raises(FileFormatError, match="Expected 5 bytes in .*adata.h5ad, .*; got 3"):
        open_saved(folder)
    path.unlink()
    with pytest.raises(FileFormatError, match="adata.h5ad; got none"):
        open_saved(folder).adata_path()


def test_data_that_were_not_written_are_an_error(tmp_path: Path, record: Record) -> None:
    with pytest.raises(FileNotFoundError, match="adata.h5ad"):
        save_model_files(tmp_path / "m", record, {}, write_adata=lambda path: None)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "cells",
    [
        {"training": torch.arange(3)},
        {"train": torch.zeros(3)},
        {"train": torch.zeros(3, dtype=torch.bool)},
        {"train": torch.tensor(3)},
        {"test": torch.zeros(3, 1, dtype=torch.int64)},
    ],
)
def test_a_split_is_of_positions_when_saved_and_when_read(
    tmp_path: Path, folder: Path, record: Record, cells: dict[str, Tensor]
) -> None:
    with pytest.raises(InvalidOptionError, match="int64"):
        save_model_files(tmp_path / "other", record, {}, cells)
    assert not (tmp_path / "other").exists()
    replace_tensors(folder, "cells.safetensors", cells)
    with pytest.raises(FileFormatError, match="cells.safetensors, each int64"):
        open_saved(folder).cells()


def test_a_record_of_the_wrong_kind_is_not_saved(tmp_path: Path, record: Record) -> None:
    odd = dataclasses.replace(record, versions={"torch": 2})  # type: ignore[dict-item]
    with pytest.raises(FileFormatError, match="in what is to be saved: versions.torch; got 2"):
        save_model_files(tmp_path / "m", odd, {})
    assert not (tmp_path / "m").exists()


def test_a_record_too_large_to_be_read_is_not_saved(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellvae.persistence.store.MAX_RECORD_BYTES", 1000)
    odd = dataclasses.replace(record, history={"elbo": [0.5] * 1000})
    with pytest.raises(InvalidOptionError, match="at most 1,000 bytes to save; got"):
        save_model_files(tmp_path / "m", odd, {})
    assert not (tmp_path / "m").exists()


def test_more_positions_than_any_data_have_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellvae.persistence.store.MAX_CELLS", 7)
    with pytest.raises(UnsafeFileError, match="at most 7 positions .* got 8 for 'train'"):
        open_saved(folder).cells()


def test_a_file_in_the_place_of_the_folder_is_an_error_of_the_system(
    tmp_path: Path, record: Record
) -> None:
    (tmp_path / "m").write_text("mine")
    with pytest.raises(FileExistsError, match="File exists") as caught:
        save_model_files(tmp_path / "m", record, {})
    assert "not saved" in caught.value.__notes__[0]
    with pytest.raises(NotADirectoryError):
        save_model_files(tmp_path / "m" / "deeper", record, {})
    assert (tmp_path / "m").read_text() == "mine"
    with pytest.raises(FileFormatError, match="got the file"):
        open_saved(tmp_path / "m")


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="an administrator may write anywhere"
)
def test_a_folder_that_cannot_be_written_to_is_an_error_of_the_system(
    tmp_path: Path, record: Record
) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Permission denied"):
        save_model_files(tmp_path, record, {})
    tmp_path.chmod(0o700)


def test_a_refused_folder_keeps_the_words_of_the_system(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PermissionError, match="Permission denied") as caught:
        save_model_files(tmp_path, record, {})
    assert "not saved" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_told_from_an_empty_folder_and_a_folder_of_other_things(
    tmp_path: Path,
) -> None:
    with pytest.raises(FileNotFoundError, match="there is no '.*nowhere'"):
        open_saved(tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match="Expected model.json.* the folder holds nothing"):
        open_saved(tmp_path)
    (tmp_path / "counts.csv").touch()
    with pytest.raises(FileFormatError, match="the folder holds 'counts.csv'"):
        open_saved(tmp_path)


def test_other_prefixes_are_named(folder: Path, record: Record) -> None:
    save_model_files(folder, record, {}, prefix="rna_")
    with pytest.raises(FileFormatError, match="prefixes '', 'rna_'.*`prefix=''`"):
        open_saved(folder, "atac_")


@pytest.mark.parametrize("prefix", ["", "a_"])
def test_a_model_of_scvi_tools_is_recognised(tmp_path: Path, prefix: str) -> None:
    (tmp_path / f"{prefix}model.pt").write_bytes(b"\x80\x04N.")
    with pytest.raises(FileFormatError, match=f"got {prefix}model.pt, a model of scvi-tools"):
        open_saved(tmp_path, prefix)


@pytest.mark.parametrize("name", ["weights.safetensors", "cells.safetensors"])
def test_missing_cut_changed_and_empty_tensor_files_are_refused(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match=f"bytes of .*{name} that model.json"):
            open_saved(folder)
    for length in (0, 5, len(content) - 1):
        path.write_bytes(content[:length])
        message = f"Expected {len(content):,} bytes in .*{name}, as model.json says; got {length:,}"
        with pytest.raises(FileFormatError, match=message):
            open_saved(folder)
    path.unlink()
    with pytest.raises(FileFormatError, match=f"Expected the file .*{name}; got none"):
        open_saved(folder)


def test_weights_exchanged_after_opening_are_refused_not_mixed(
    folder: Path, record: Record, weights: dict[str, Tensor]
) -> None:
    saved = open_saved(folder)
    other = {name: tensor + 1 for name, tensor in weights.items() if name != "mask"}
    save_model_files(folder, record, {**other, "mask": ~weights["mask"]}, overwrite=True)
    with pytest.raises(FileFormatError, match="saved over it since this one was opened"):
        saved.tensors()


def test_hostile_weights_with_a_right_checksum_are_refused_before_any_memory_is_taken(
    folder: Path, raw_file: Callable[..., Path]
) -> None:
    entry = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}
    content = raw_file({"w": entry}, b"\0" * 64).read_bytes()
    (folder / "weights.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    change_record(folder, files={"weights.safetensors": {"bytes": len(content), "sha256": sha256}})
    saved = open_saved(folder)
    tracemalloc.start()
    for read in (saved.header, saved.tensors):
        with pytest.raises(FileFormatError, match="4,000,000,000,000 bytes, and 64 follow"):
            read()
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, FileFormatError, "got none"),
        ({"x.bin": {"bytes": 1, "sha256": "0" * 64}}, FileFormatError, "got 'x.bin'"),
        ({"../x": {"bytes": 1, "sha256": "0" * 64}}, UnsafeFileError, "lead elsewhere"),
        ({"/x": {"bytes": 1, "sha256": "0" * 64}}, UnsafeFileError, "lead elsewhere"),
    ],
)
def test_a_record_that_names_other_files_is_refused(
    folder: Path, files: Any, error: type[Exception], message: str
) -> None:
    change_record(folder, files=files)
    with pytest.raises(error, match=message):
        open_saved(folder)


def test_weights_without_a_checksum_are_refused(folder: Path) -> None:
    size = (folder / "weights.safetensors").stat().st_size
    change_record(folder, files={"weights.safetensors": {"bytes": size, "sha256": None}})
    with pytest.raises(FileFormatError, match="checksum"):
        open_saved(folder)


def values_of(folder: Path) -> str:
    """Everything that a saved model says, as text."""
    saved = open_saved(folder)
    tensors = [*saved.tensors().items(), *saved.cells().items()]
    path = saved.adata_path()
    return repr((saved.record, tensors, path and path.read_bytes()))


def test_every_flip_and_cut_of_every_file_is_refused_or_says_the_same(
    tmp_path: Path, record: Record, weights: dict[str, Tensor]
) -> None:
    folder = save_model_files(
        tmp_path / "m",
        record,
        weights,
        {"train": torch.arange(8)},
        write_adata=lambda path: path.write_bytes(b"cells " * 30) and None,
    )
    expected = values_of(folder)
    random, same = np.random.default_rng(0), 0
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        n = len(content)
        flips = [(place, 1 << bit) for place, bit in enumerate(random.integers(0, 8, n).tolist())]
        damaged = [content[:length] for length in random.permutation(n)[:100].tolist()]
        for place, bit in flips:
            changed = bytearray(content)
            changed[place] ^= bit
            damaged.append(bytes(changed))
        for other in damaged:
            path.write_bytes(other)
            try:
                found = values_of(folder)
            except FileFormatError as error:
                assert path.name in str(error), error
                continue
            # Spaces between the values of model.json say nothing.
            assert found == expected
            assert path.name == "model.json"
            same += 1
        path.write_bytes(content)
    assert same < 100
    assert values_of(folder) == expected


def test_a_record_may_be_indented_otherwise_but_not_say_something_else(folder: Path) -> None:
    path = folder / "model.json"
    text = path.read_text()
    path.write_bytes(text.replace("\n", "\r\n").encode())
    open_saved(folder)
    change_record(folder)
    open_saved(folder)
    change_record(folder, library_version="0.1.1")
    with pytest.raises(FileFormatError, match=r"model\.json what it said when weights"):
        open_saved(folder)


def test_files_of_before_checksums_of_the_record_and_the_data_are_read(
    tmp_path: Path, record: Record, weights: dict[str, Tensor]
) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"cells")

    folder = save_model_files(tmp_path / "m", record, weights, write_adata=write)
    files = json.loads((folder / "model.json").read_text())["files"]
    assert files["adata.h5ad"]["sha256"] == hashlib.sha256(b"cells").hexdigest()
    (folder / "adata.h5ad").write_bytes(b"sells")
    saved = open_saved(folder)
    with pytest.raises(FileFormatError, match=r"bytes of .*adata\.h5ad that model\.json"):
        saved.adata_path()
    change_record(folder, files=files | {"adata.h5ad": {"bytes": 5, "sha256": None}})
    replace_tensors(folder, "weights.safetensors", weights)
    change_record(folder, library_version="0.0.9")
    assert open_saved(folder).adata_path() == folder / "adata.h5ad"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", FileFormatError),
        (b"\xff\xfe{\x00}\x00", FileFormatError),
        (b'{"model": "SCVI"', FileFormatError),
        (b"[" * 10**6, UnsafeFileError),
        (b'{"a":' * 10**5, UnsafeFileError),
    ],
)
def test_a_damaged_or_hostile_record_is_refused_naming_the_file(
    folder: Path, content: bytes, error: type[Exception]
) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(error, match="model.json"):
        open_saved(folder)


@needs_links
def test_links_to_ordinary_files_are_followed_as_caches_of_downloads_need(
    tmp_path: Path, folder: Path
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    folder.rename(blobs)
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    saved = open_saved(snapshot)
    assert saved.cells()["validation"].tolist() == [9, 8]
    before = {path.name: path.read_bytes() for path in blobs.iterdir()}
    save_model_files(snapshot, saved.record, {}, overwrite=True)
    assert open_saved(snapshot).tensors() == {}
    assert {path.name: path.read_bytes() for path in blobs.iterdir()} == before


@needs_links
@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_pipes_devices_and_folders_are_refused_and_never_waited_for(
    folder: Path, name: str
) -> None:
    path = folder / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnsafeFileError, match="ordinary file"):
        open_saved(folder)
    path.unlink()
    path.symlink_to(os.devnull)
    with pytest.raises(UnsafeFileError, match="ordinary file"):
        open_saved(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(UnsafeFileError, match="ordinary file"):
        open_saved(folder)


def test_a_model_of_a_later_format_says_what_to_install(folder: Path) -> None:
    change_record(folder, format=3, library_version="1.4.0", novelty={})
    with pytest.raises(FileFormatError, match='format 3, .*"cellvae>=1.4.0"'):
        open_saved(folder)
