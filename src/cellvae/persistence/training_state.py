"""State of a run that can go on: a file of tensors and plain values, read without running code."""

from __future__ import annotations

import io
import os
import pickle
import secrets
import warnings
from pathlib import Path
from typing import Any

import torch

from cellvae.errors import FileFormatError, UnsafeFileError
from cellvae.persistence.disk import ordinary_size, sync, write_through

FORMAT = 1
SUFFIX = ".state"


def write_state(path: Path, values: dict[str, Any]) -> None:
    """Write the state of a run; a cut at any moment leaves the old file or the new one.

    Parameters
    ----------
    path
        File to write; its folder is made if it is not there.
    values
        Tensors, numbers, texts, and lists and dictionaries of them.

    Raises
    ------
    OSError
        If the folder cannot be written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save({"format": FORMAT, **values}, content)
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        write_through(part, content.getvalue())
        os.replace(part, path)  # noqa: PTH105
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def read_state(path: Path) -> dict[str, Any]:
    """State of a run from its file.

    Raises
    ------
    FileFormatError
        If there is no such file, it is damaged, or of a later version.
    UnsafeFileError
        If it holds more than values.
    """
    ordinary_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            f"Expected the state of a training run in {path}; got a file that holds more than "
            "values, or is damaged. Do not use it: it was not written by train()."
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise FileFormatError(
            f"Expected the state of a training run in {path}; it could not be read: {error}. "
            "The file is damaged: resume from another one, or train anew."
        ) from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise FileFormatError(
            f"Expected a training state of format {FORMAT} in {path}; got {found!r}. "
            "Resume with the version of cellvae that wrote it, or train anew."
        )
    return values
