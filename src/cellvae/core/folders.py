"""Checks of output folders, made before any work starts."""

from __future__ import annotations

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
