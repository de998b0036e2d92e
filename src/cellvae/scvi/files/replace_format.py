"""A saved model that replaces one of the other format in the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cellvae.errors import InvalidOptionError, quote_names
from cellvae.persistence.paths import CELLS, MODEL, WEIGHTS, ModelPaths
from cellvae.scvi.files.model_file import foreign_files

Format = Literal["cellvae", "scvi-tools"]


def other_files(folder: Path, prefix: str, format: Format) -> list[Path]:
    """Files of a model of the format that is not the given one; the one that tells it is first."""
    if format == "cellvae":
        return foreign_files(folder, prefix)
    place = ModelPaths(folder, prefix)
    own = [
        path(name)
        for name in (MODEL, WEIGHTS, CELLS)
        for path in (place.pending_path, place.final_path)
    ]
    return [path for path in own if path.is_file()]


def check_other_format(folder: Path, prefix: str, format: Format, *, overwrite: bool) -> None:
    """Refuse to save beside a model of the other format that nobody said may be replaced.

    Raises
    ------
    InvalidOptionError
        If there is one and `overwrite` is False.
    """
    found = other_files(folder, prefix, format)
    if found and not overwrite:
        other = "scvi-tools" if format == "cellvae" else "cellvae"
        raise InvalidOptionError(
            f"Expected no saved model in '{folder}'; got "
            f"{quote_names([path.name for path in found])}, a "
            f"model of {other}. Give overwrite=True to replace it, or another folder or prefix."
        )


def remove_other_format(folder: Path, prefix: str, format: Format) -> None:
    """Remove a model of the other format once that of the given one has been saved."""
    for path in other_files(folder, prefix, format):
        path.unlink(missing_ok=True)
