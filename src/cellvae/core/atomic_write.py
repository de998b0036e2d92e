"""Files that are replaced atomically."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_atomically(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Context that yields a temporary path, whose file replaces `path` if the context succeeds.

    The temporary file is in the same folder, under a hidden name that no other process or thread
    uses. A reader sees the old file or the new one, never a part of it. After an exception the
    old file stays as it was.

    Parameters
    ----------
    path
        File to write or to replace; its folder exists.
    durable
        Whether the file also survives a power failure from then on (`fsync`).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        if durable:
            fsync_path(temporary)
        # Not Path.replace: tests make this one step fail.
        os.replace(temporary, path)  # noqa: PTH105
        if durable:
            fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows does not open folders
        return
    try:
        # Some file systems cannot sync a folder; that is no reason to lose a model.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(handle)
    finally:
        os.close(handle)
