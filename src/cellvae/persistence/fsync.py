"""Single files: checks, durable writes, checksums."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from cellvae.errors import FileFormatError, UnsafeFileError

if TYPE_CHECKING:
    from pathlib import Path


def regular_file_size(path: Path) -> int:
    """Size of a regular file, in bytes.

    Links are followed: caches of downloaded models consist of them.

    Raises
    ------
    FileFormatError
        If there is no such file.
    UnsafeFileError
        If reading it could block or never end.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileFormatError(
            f"Expected the file {path}; got none. Part of the model is missing: copy the whole "
            "folder that was saved."
        ) from None
    if not path.is_file():
        raise UnsafeFileError(
            f"Expected an ordinary file at {path}; got a folder, pipe or device. "
            "Use the folder that was saved."
        )
    return size


def write_and_fsync(path: Path, content: bytes | memoryview) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
