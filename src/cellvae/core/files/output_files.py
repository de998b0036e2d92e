"""Output files and folders: folders are checked first, files are replaced atomically."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cellvae.errors import InvalidOptionError


def check_output_folder(path: str | Path, argument: str) -> Path:
    """Output folder that exists or can be created, with `~` expanded.

    Raises
    ------
    InvalidOptionError
        If the path is empty or no path, or a part of it is a file or a link to something that does
        not exist.
    """
    if not str(path).strip() or "\0" in str(path):
        raise InvalidOptionError(f"Expected {argument} to be a folder; got {str(path)!r}.")
    folder = Path(path).expanduser()
    for part in (folder, *folder.parents):
        if part.is_dir():
            break
        if part.is_symlink() and not part.exists():
            raise InvalidOptionError(
                f"Expected {argument} to be a folder; got '{folder}', and '{part}' is a link to "
                f"'{part.readlink()}', which does not exist. Remove the link, or give another path."
            )
        if part.exists():
            raise InvalidOptionError(
                f"Expected {argument} to be a folder; got '{folder}', and '{part}' is a file. "
                "Give another path."
            )
    return folder


@contextlib.contextmanager
def replace_atomically(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Context that yields a temporary path, whose file replaces `path` if the context succeeds.

    What is written may be a folder too, such as a zarr store; an old folder is then removed first.
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
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)  # os.replace replaces a folder only if it is empty
        # Not Path.replace: tests make this one step fail.
        os.replace(temporary, path)  # noqa: PTH105
        if durable:
            fsync_path(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
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
