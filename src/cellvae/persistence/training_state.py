"""Training state of a run: a file of tensors and plain values, read without running code."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from cellvae.core.files.output_files import replace_atomically
from cellvae.errors import FileFormatError, UnsafeFileError
from cellvae.persistence.fsync import regular_file_size

STATE_FORMAT = 2
SUFFIX = ".state"
COMMENT = b"cellvae training state, sha256 of the bytes before this comment: "
"""Beginning of the comment of the zip file that `torch.save` writes; 64 digits follow."""
COMMENT_LENGTH = len(COMMENT) + 64
END_OF_ZIP = b"PK\x05\x06"
"""Signature of the last record of a zip file, which is 22 bytes long without a comment."""


def write_state(path: Path, values: dict[str, Any]) -> None:
    """Write the training state of a run atomically and durably.

    The file is what `torch.save` writes, with a SHA-256 of everything before it as the comment of
    the zip file, so that `torch.load` reads it too.

    Parameters
    ----------
    path
        File to write; its folder is made if it is not there.
    values
        Tensors, numbers, strings, and lists and dictionaries of them.

    Raises
    ------
    OSError
        If the folder cannot be written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": STATE_FORMAT, **values}, buffer)
    buffer.seek(-2, os.SEEK_END)  # the length of the comment, which is empty so far
    buffer.write(COMMENT_LENGTH.to_bytes(2, "little"))
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(COMMENT + digest.encode())
    with replace_atomically(path, durable=True) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """Training state in a file.

    Raises
    ------
    FileFormatError
        If there is no such file, it is damaged, or of another version.
    UnsafeFileError
        If it holds more than values.
    """
    return parse_state(verified_content(path), path)


def verified_content(path: Path) -> bytes:
    """Bytes of a training state, verified with the checksum at their end.

    Raises
    ------
    FileFormatError
        If there is no such file, or a single bit is not as it was written.
    """
    regular_file_size(path)
    content = path.read_bytes()
    body, comment = content[:-COMMENT_LENGTH], content[-COMMENT_LENGTH:]
    if re.fullmatch(re.escape(COMMENT) + rb"[0-9a-f]{64}", comment) is None:
        whole = content[-22:-18] == END_OF_ZIP and content[-2:] == b"\0\0"
        problem = (
            "it has no checksum, as those of cellvae before states were protected by one"
            if whole
            else f"its {len(content):,} bytes do not end in a checksum, so it was cut or damaged"
        )
        raise damaged_state_error(path, problem)
    if hashlib.sha256(body).hexdigest().encode() != comment[len(COMMENT) :]:
        raise damaged_state_error(path, "its bytes do not have the checksum at their end")
    return content


def damaged_state_error(path: Path, problem: str) -> FileFormatError:
    """Error for a damaged training state."""
    return FileFormatError(
        f"Expected the state of a training run in {path}; {problem}. "
        "Resume from another state, or delete this one to train anew."
    )


def parse_state(content: bytes, path: Path) -> dict[str, Any]:
    """Tensors and plain values in the bytes of a training state.

    Raises
    ------
    FileFormatError
        If the bytes are of another version, or no state.
    UnsafeFileError
        If they hold more than values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            f"Expected the state of a training run in {path}; got a file that holds more than "
            "values. Do not use it: it was not written by train()."
        ) from error
    except Exception as error:  # of any kind: what stands in the file decides
        problem = f"it could not be read: {type(error).__name__}: {error}"
        raise damaged_state_error(path, problem) from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != STATE_FORMAT:
        raise FileFormatError(
            f"Expected a training state of format {STATE_FORMAT} in {path}; got {found!r}. "
            "Resume with the version of cellvae that wrote it, or train anew."
        )
    return values
