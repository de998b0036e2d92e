"""Saving a model to a folder, and opening it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from cellvae.core.files.output_files import fsync_path
from cellvae.errors import (
    CellvaeError,
    FileFormatError,
    InvalidOptionError,
    UnsafeFileError,
    quote_names,
)
from cellvae.persistence.atomic_commit import commit, complete_pending, staging_folder
from cellvae.persistence.fsync import regular_file_size, sha256_of_file, write_and_fsync
from cellvae.persistence.migrations import RECORD_FORMAT
from cellvae.persistence.paths import (
    ADATA,
    CELLS,
    DATA_NAMES,
    MODEL,
    WEIGHTS,
    ModelPaths,
    check_present,
    model_paths,
)
from cellvae.persistence.record import (
    MAX_RECORD_BYTES,
    FileRecord,
    Record,
    content_digest,
    read_text,
)
from cellvae.persistence.safetensors_header import TensorSpec, read_header, read_metadata
from cellvae.persistence.tensors import checksum_error, read_tensors, tensor_specs, write_tensors

T = TypeVar("T")

SPLIT_NAMES = ("train", "validation", "test")
MAX_CELLS = 10**9
"""Largest number of cells in each part of a split."""


@dataclass(frozen=True, kw_only=True)
class SavedFiles:
    """A saved model whose files were verified; tensors are read on request."""

    record: Record
    folder: Path
    prefix: str

    def header(self) -> dict[str, TensorSpec]:
        """Type and shape of each weight, without reading any."""
        return retry_if_changed(self.place, lambda: read_header(self.place.current_path(WEIGHTS)))

    def tensors(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """Weights and buffers by name; compare `header` with the model first.

        Raises
        ------
        FileFormatError
            If they changed since the model was opened.
        """
        return self.read(WEIGHTS, device)

    def cells(self) -> dict[str, Tensor]:
        """Positions of the training, validation and test cells, each [cells]; {} if not saved.

        Raises
        ------
        FileFormatError
            If the file holds anything else.
        """
        if CELLS not in self.record.files:
            return {}
        for name, spec in retry_if_changed(
            self.place, lambda: read_header(self.place.current_path(CELLS))
        ).items():
            check_positions(name, spec, str(self.place.current_path(CELLS)), FileFormatError)
        return self.read(CELLS, "cpu")

    def adata_path(self) -> Path | None:
        """File with the data that were saved with the model; None if none were.

        Raises
        ------
        FileFormatError
            If they were, and the file is gone or damaged.
        """
        names = [name for name in DATA_NAMES if name in self.record.files]
        if not names:
            return None
        path, sha256 = self.place.current_path(names[0]), self.record.files[names[0]].sha256
        regular_file_size(path)
        # Not when the model is opened: the data can be large, and others may be given.
        if sha256 is not None and sha256_of_file(path) != sha256:
            raise checksum_error(path)
        return path

    def read(self, name: str, device: str | torch.device) -> dict[str, Tensor]:
        """Tensors of a file, whose bytes are verified with the checksum in the record."""
        place, sha256 = self.place, self.record.files[name].sha256
        return retry_if_changed(
            place, lambda: read_tensors(place.current_path(name), device, sha256=sha256)
        )

    @property
    def place(self) -> ModelPaths:
        """Paths of the files of the model."""
        return ModelPaths(self.folder, self.prefix)


def save_model_files(
    folder: str | Path,
    record: Record,
    weights: Mapping[str, Tensor],
    cells: Mapping[str, Tensor] | None = None,
    *,
    prefix: str = "",
    overwrite: bool = False,
    write_adata: Callable[[Path], None] | None = None,
    data_name: str = ADATA,
) -> Path:
    """Save a model atomically: an interruption leaves the old model or the new one, complete.

    Parameters
    ----------
    folder
        Where to save; made with its parents if it is not there. Other files in it stay.
    record
        Everything that is not a tensor; its `files` are filled in here.
    weights
        Weights and buffers by name.
    cells
        Positions of the 'train', 'validation' and 'test' cells, each [cells].
    prefix
        Start of the names of the files, to keep several models in one folder.
    overwrite
        Whether files of these names may be replaced.
    write_adata
        Writes the data to the path it is given; nothing is kept of them otherwise.
    data_name
        Name of the file of the data.

    Returns
    -------
    The folder.

    Raises
    ------
    InvalidOptionError
        If there are such files and `overwrite` is false, or something cannot be saved.
    OSError
        If the folder cannot be written to, or the disk is full.
    """
    place = model_paths(folder, prefix)
    cells = cells or {}
    for name, spec in tensor_specs(cells).items():
        check_positions(name, spec, "`cells`", InvalidOptionError)
    names = [MODEL, WEIGHTS, *([CELLS] if cells else []), *([data_name] if write_adata else [])]
    check_not_existing(place, names, overwrite)
    with staging_folder(place) as stage:
        stage_layout = ModelPaths(stage, prefix)
        digest = content_digest(record_text(record, {}))
        write_tensors(stage_layout.final_path(WEIGHTS), weights, {MODEL: digest})
        if cells:
            write_tensors(stage_layout.final_path(CELLS), cells)
        if write_adata is not None:
            write_adata(stage_layout.final_path(data_name))
            fsync_path(stage_layout.final_path(data_name))
        write_record(stage_layout, record)
        check_not_existing(place, names, overwrite)
        commit(place, stage)
    return place.folder


def write_record(place: ModelPaths, record: Record) -> None:
    """Write the record of the files that are in a folder."""
    files = {}
    for name in (WEIGHTS, CELLS, *DATA_NAMES):
        path = place.final_path(name)
        if path.exists():
            files[name] = FileRecord(n_bytes=regular_file_size(path), sha256=sha256_of_file(path))
    text = record_text(record, files)
    Record.from_json(text, "what is to be saved")
    content = text.encode()
    if len(content) > MAX_RECORD_BYTES:
        raise InvalidOptionError(
            f"Expected a record of at most {MAX_RECORD_BYTES:,} bytes to save; got "
            f"{len(content):,}. "
            "Shorten the history or the report."
        )
    write_and_fsync(place.final_path(MODEL), content)


def record_text(record: Record, files: Mapping[str, FileRecord]) -> str:
    """JSON text of a record in the newest format, with these files."""
    return dataclasses.replace(record, format=RECORD_FORMAT, files=files).to_json()


def check_not_existing(place: ModelPaths, names: list[str], overwrite: bool) -> None:
    """Refuse to replace files without `overwrite`."""
    existing = [] if overwrite else place.existing_names(names)
    if existing:
        raise InvalidOptionError(
            f"Expected no saved model in '{place.folder}'; got {quote_names(existing)}. "
            "Give `overwrite=True` to replace it, or another folder or `prefix`."
        )


def check_positions(name: str, spec: TensorSpec, where: str, problem: type[CellvaeError]) -> None:
    """Check that a tensor can be part of a split: a list of cell indices."""
    if name not in SPLIT_NAMES or spec.dtype != torch.int64 or len(spec.shape) != 1:
        raise problem(
            f"Expected positions of {quote_names(SPLIT_NAMES)} cells in {where}, each int64 "
            "[cells]; got "
            f"'{name[:80]}', {spec}. Give 1-D tensors of whole numbers."
        )
    if spec.shape[0] > MAX_CELLS:
        raise UnsafeFileError(
            f"Expected at most {MAX_CELLS:,} positions in {where}; got {spec.shape[0]:,} "
            f"for '{name}'. Do not use this file."
        )


def open_saved(folder: str | Path, prefix: str = "") -> SavedFiles:
    """Open a saved model: read the record, and verify every file with it.

    Parameters
    ----------
    folder
        What `save` was given.
    prefix
        What `save` was given.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    FileFormatError
        If it holds no model, or a file is missing, cut, changed, or of a later version.
    UnsafeFileError
        If a file asks for more than being read.
    """
    place = model_paths(folder, prefix)
    with contextlib.suppress(OSError):  # Others may lend a folder that only they can write to.
        complete_pending(place)
    return retry_if_changed(place, lambda: open_verified(place))


def open_verified(place: ModelPaths) -> SavedFiles:
    """Saved model whose files are as its record says."""
    check_present(place)
    where = place.current_path(MODEL)
    text = read_text(where)
    record = Record.from_json(text, str(where))
    unknown = [name for name in record.files if name not in (WEIGHTS, CELLS, *DATA_NAMES)]
    if unknown or WEIGHTS not in record.files:
        problem = f"got {quote_names(unknown)}" if unknown else "got none"
        raise FileFormatError(
            f"Expected '{WEIGHTS}', and none but '{CELLS}' and one of {quote_names(DATA_NAMES)} "
            f"beside it, under 'files' in {where}; {problem}. Use the file that was saved."
        )
    for name, file in record.files.items():
        path = place.current_path(name)
        if name in DATA_NAMES and not path.exists():
            continue
        size = regular_file_size(path)
        if size != file.n_bytes:
            raise FileFormatError(
                f"Expected {file.n_bytes:,} bytes in {path}, as {where.name} says; got {size:,}. "
                "The file was cut or changed: copy the folder anew."
            )
        if name not in DATA_NAMES and sha256_of_file(path) != file.sha256:
            raise checksum_error(path)
    written = read_metadata(place.current_path(WEIGHTS)).get(MODEL)
    if written is not None and written != content_digest(text, str(where)):
        raise FileFormatError(
            f"Expected in {where} what it said when {place.current_path(WEIGHTS).name} was "
            "written; got "
            "something else. The file was damaged or edited: copy the folder anew."
        )
    return SavedFiles(record=record, folder=place.folder, prefix=place.prefix)


def retry_if_changed(place: ModelPaths, read: Callable[[], T]) -> T:
    """What `read` returns; asked again if it failed while another process was saving here."""
    for _ in range(20):
        before = place.stat_signature()
        try:
            return read()
        except (FileFormatError, FileNotFoundError):
            if place.stat_signature() == before:
                raise
    return read()
