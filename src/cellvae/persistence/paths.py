"""Names and paths of the files of a saved model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cellvae.errors import FileFormatError, InvalidOptionError, quote_names

MODEL = "model.json"
WEIGHTS = "weights.safetensors"
CELLS = "cells.safetensors"
ADATA = "adata.h5ad"
MUDATA = "mdata.h5mu"
DATA_NAMES = (ADATA, MUDATA)
"""Names of the file of the data that a model was saved with, of which there is at most one."""
FILE_NAMES = (WEIGHTS, CELLS, *DATA_NAMES, MODEL)
"""Every file that a saved model can have; the record is moved last."""


@dataclass(frozen=True)
class ModelPaths:
    """Paths of the files of one model; a folder can hold several, distinguished by a prefix."""

    folder: Path
    prefix: str

    @property
    def pending_dir(self) -> Path:
        """Folder with committed files that are not in their place yet; rarely exists."""
        return self.folder / f".{self.prefix}model.incoming"

    def final_path(self, name: str) -> Path:
        """Path of a file in its place."""
        return self.folder / f"{self.prefix}{name}"

    def pending_path(self, name: str) -> Path:
        """Path of a file that is committed but not in its place yet."""
        return self.pending_dir / f"{self.prefix}{name}"

    def current_path(self, name: str) -> Path:
        """Path of the valid file: the pending one if there is one, as it is newer."""
        pending = self.pending_path(name)
        return pending if pending.is_file() else self.final_path(name)

    def existing_names(self, names: Iterable[str]) -> list[str]:
        """Names of existing files, with prefix."""
        return [
            self.final_path(name).name for name in names if os.path.lexists(self.current_path(name))
        ]

    def stat_signature(self) -> tuple[tuple[int, ...] | None, ...]:
        """Signature that changes if any file of the model is moved or replaced."""
        return tuple(
            stat_signature(path(name))
            for name in FILE_NAMES
            for path in (self.pending_path, self.final_path)
        )


def stat_signature(path: Path) -> tuple[int, ...] | None:
    """Identity of the file at a path; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def model_paths(folder: str | Path, prefix: str) -> ModelPaths:
    """Paths of a model in a folder, with `~` expanded.

    Raises
    ------
    InvalidOptionError
        If the prefix would lead out of the folder.
    """
    if any(sign in prefix for sign in "/\\:\0"):
        raise InvalidOptionError(
            f"Expected the start of a file name as `prefix`; got {prefix!r}. "
            "Give the folder as the first argument, and a prefix without '/', '\\' or ':'."
        )
    return ModelPaths(Path(folder).expanduser(), prefix)


def check_present(place: ModelPaths) -> None:
    """Check that a folder holds a model with the prefix; the error says what it holds.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    FileFormatError
        If it holds no model, a model of scvi-tools, or models with other prefixes.
    """
    folder, model = place.folder, place.prefix + MODEL
    if os.path.lexists(place.current_path(MODEL)):
        return
    if not folder.exists():
        raise FileNotFoundError(
            f"Expected the folder of a saved model; there is no '{folder}'. Check the path."
        )
    if not folder.is_dir():
        raise FileFormatError(
            f"Expected the folder of a saved model; got the file '{folder}'. Give the folder that "
            f"holds {model}."
        )
    names = sorted(path.name for path in folder.iterdir())
    if f"{place.prefix}model.pt" in names:
        raise FileFormatError(
            f"Expected {model} in '{folder}'; got {place.prefix}model.pt, a model of scvi-tools. "
            "Load it with cellvae.load or the load of its class, such as SCVI.load: both read it "
            "without running code, and save writes it in the format of cellvae."
        )
    prefixes = [name.removesuffix(MODEL) for name in names if name.endswith(MODEL)]
    prefixes = [prefix for prefix in prefixes if not prefix.startswith(".")]
    if prefixes:
        raise FileFormatError(
            f"Expected {model} in '{folder}'; it holds models with the prefixes "
            f"{quote_names(prefixes)}. "
            f"Give one of them: `prefix={prefixes[0]!r}`."
        )
    holds = quote_names([name for name in names if not name.startswith(".")], 8) or "nothing"
    raise FileFormatError(
        f"Expected {model}, which `save` writes, in '{folder}'; the folder holds {holds}. "
        "Check the path."
    )
