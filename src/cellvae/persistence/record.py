"""The record of a saved model, `model.json`: class, options, data, training and files."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from cellvae.core.files.json_object import JsonObject
from cellvae.errors import FileFormatError, UnsafeFileError
from cellvae.persistence.fsync import regular_file_size
from cellvae.persistence.json_codec import dumps, loads
from cellvae.persistence.migrations import RECORD_FORMAT, migrate

if TYPE_CHECKING:
    from pathlib import Path

MAX_RECORD_BYTES = 256 * 2**20
"""Largest size of a record in bytes: far more than any model needs."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size and checksum of a file when it was saved."""

    n_bytes: int
    """Size of the file."""
    sha256: str | None = None
    """Checksum as 64 hexadecimal digits; None for data that version 0.1.0 wrote."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything about a saved model that is not a tensor."""

    format: int = RECORD_FORMAT
    """Version of this list of fields."""
    model: str
    """Name of the model, such as 'SCVI'."""
    library_version: str
    """Version of cellvae that wrote the model."""
    config: dict[str, Any]
    """Options of the model."""
    registration: dict[str, Any]
    """Genes, categories and columns of the data of the model."""
    history: dict[str, Any]
    """Metrics by epoch."""
    training: dict[str, Any]
    """Seed and report of training."""
    versions: dict[str, str]
    """Versions of the libraries in use."""
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    """Files beside the record, by name without prefix."""

    def to_json(self) -> str:
        """JSON text of the record; equal records give the same string.

        Raises
        ------
        InvalidOptionError
            If a field holds what JSON cannot, such as an array.
        """
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["files"] = {
            name: {"bytes": file.n_bytes, "sha256": file.sha256}
            for name, file in self.files.items()
        }
        return dumps(fields)

    @classmethod
    def from_json(cls, text: str, where: str = "model.json") -> Record:
        """Record from its JSON text, of this format or an older one.

        Parameters
        ----------
        text
            What `to_json` wrote, or a file from anywhere.
        where
            Name of the file, for messages.

        Raises
        ------
        FileFormatError
            If the text is not JSON, a key is missing, unknown or of the wrong type, or a later
            version of cellvae wrote it.
        UnsafeFileError
            If it names a file outside its folder or is nested too deeply.
        """
        document = JsonObject(loads(text, where), file=where).unread
        fields = JsonObject(migrate(document, where), file=where)
        versions = fields.json_object("versions")
        record = cls(
            format=fields.integer("format"),
            model=fields.string("model"),
            library_version=fields.string("library_version"),
            config=fields.dictionary("config"),
            registration=fields.dictionary("registration"),
            history=fields.dictionary("history"),
            training=fields.dictionary("training"),
            versions={name: versions.string(name) for name in [*versions.unread]},
            files={
                name: parse_file_record(name, got, where)
                for name, got in fields.dictionary("files").items()
            },
        )
        fields.refuse_unread()
        return record


def content_digest(text: str, where: str = "model.json") -> str:
    """SHA-256 of the values of a record without its `files`; whitespace does not matter.

    It is written to the file of weights, whose checksum is in the record: a change of either file
    is detected from the other.
    """
    document = loads(text, where)
    described = {key: value for key, value in document.items() if key != "files"}
    return hashlib.sha256(dumps(described).encode()).hexdigest()


def read_record(path: Path) -> Record:
    """Record in a file, which is not read if it is too large.

    Raises
    ------
    FileFormatError
        If the file is missing or not a record; see `Record.from_json`.
    UnsafeFileError
        If it is larger than any record, or no ordinary file.
    """
    return Record.from_json(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Text of the file of a record, which is not read if it is too large.

    Raises
    ------
    FileFormatError
        If the file is missing or not in UTF-8.
    UnsafeFileError
        If it is larger than any record, or no ordinary file.
    """
    size = regular_file_size(path)
    if size > MAX_RECORD_BYTES:
        raise UnsafeFileError(
            f"Expected at most {MAX_RECORD_BYTES:,} bytes in {path}; got {size:,}. "
            "No model is saved like that: do not use this file."
        )
    with path.open("rb") as file:
        content = file.read(MAX_RECORD_BYTES)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"Expected text in UTF-8 in {path}; got {error}. "
            "The file is damaged or was re-encoded: use the file that was saved."
        ) from error


def parse_file_record(name: str, got: object, where: str) -> FileRecord:
    """Checked entry of a record about one file."""
    if name in ("", ".", "..") or re.search(r"[/\\:\x00-\x1f]", name):
        raise UnsafeFileError(
            f"Expected names of files in the folder of the model in {where}; got {name!r} under "
            "'files', which may lead elsewhere. Do not use this file."
        )
    entries = JsonObject(got, f"files.{name}", where)
    checksum = entries.value("sha256")
    if not (checksum is None or is_sha256(checksum)):
        raise entries.type_error("64 hexadecimal digits", checksum, "sha256")
    record = FileRecord(n_bytes=entries.integer("bytes"), sha256=checksum)
    entries.refuse_unread()
    return record


def is_sha256(value: object) -> TypeGuard[str]:
    """Whether a value is a SHA-256 as `hexdigest` writes it."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
