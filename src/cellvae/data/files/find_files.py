"""Files of cells that paths, patterns and collections of annbatch name."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from cellvae.errors import InvalidDataError, InvalidOptionError, quote_names

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[Any]"
"""A path, or several paths or groups of zarr; a `DatasetCollection` of annbatch has several."""
DATASET = re.compile(r"dataset_(\d+)")
"""Names of the parts of a collection of annbatch, by their number."""
COLLECTION = "annbatch-preshuffled"
"""Encoding of the root group of such a collection."""


def find_files(paths: Paths) -> tuple[Path, ...]:
    """Files that paths and patterns name, and the parts of collections in their order.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or nothing fits a pattern.
    InvalidOptionError
        If there is no path, a file is named twice, or a group of zarr is not on a local disk.
    InvalidDataError
        If a collection was not written to its end.
    """
    single = isinstance(paths, (str, os.PathLike))
    found: list[Path] = []
    for each in [paths] if single else list(paths):  # type: ignore[arg-type]
        found.extend(matching_paths(path_of(each)))
    if not found:
        raise InvalidOptionError("Expected at least one path; got none.")
    parts = [part for path in found for part in parts_of(path)]
    if len({path.resolve() for path in parts}) < len(parts):
        names = [str(path) for path in parts]
        repeated = sorted({name for name in names if names.count(name) > 1}) or names
        raise InvalidOptionError(f"Expected each file once; got {quote_names(repeated)} again.")
    return tuple(parts)


def path_of(given: Any) -> Path:
    """Path that was given, or that of a group of zarr on a local disk."""
    if isinstance(given, (str, os.PathLike)):
        return Path(given).expanduser()
    store = getattr(given, "store", None)
    root = getattr(store, "root", getattr(store, "dir_path", None))
    root = root() if callable(root) else root
    if root is None:
        raise InvalidOptionError(
            "Expected paths, a collection of annbatch, or groups of zarr on a local disk; got "
            f"{type(given).__name__}."
        )
    return Path(root) / given.path


def matching_paths(path: Path) -> list[Path]:
    """Path itself if it exists, otherwise the paths that fit the pattern, by name."""
    text = str(path)
    if path.exists():
        return [path]
    if not glob.has_magic(text):
        raise FileNotFoundError(f"Expected a file of cells in '{path}'; there is nothing.")
    # A pattern may be absolute, which Path.glob refuses.
    found = [Path(each) for each in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
    if not found:
        raise FileNotFoundError(f"Expected files that fit '{text}'; there are none.")
    # Names would sort dataset_10 before dataset_2.
    return sorted(found, key=part_number) if all(map(is_part, found)) else found


def parts_of(path: Path) -> list[Path]:
    """Parts of a collection of annbatch, in the order of their numbers; else the path itself.

    Raises
    ------
    InvalidDataError
        If the collection was not written to its end.
    """
    if not path.is_dir() or (path / "obs").exists():
        return [path]
    parts = sorted((each for each in path.iterdir() if part_number(each) >= 0), key=part_number)
    if not parts and not is_collection(path):
        return [path]
    if not parts or not is_collection(path):
        raise InvalidDataError(
            f"Expected a whole collection of annbatch in '{path}'; got {len(parts):,} parts and "
            "no mark of its end. Write it again, or open the parts that are whole by a pattern: "
            f"'{path}/dataset_*'."
        )
    return parts


def is_collection(path: Path) -> bool:
    """Whether a folder is a collection that annbatch has written to its end."""
    try:
        metadata = json.loads((path / "zarr.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(metadata.get("attributes", {}).get("encoding-type") == COLLECTION)


def part_number(path: Path) -> int:
    """Number of a part of a collection; -1 for another file."""
    found = DATASET.fullmatch(path.name)
    return -1 if found is None else int(found.group(1))


def is_part(path: Path) -> bool:
    """Whether a folder is a part of a collection of annbatch."""
    return part_number(path) >= 0 and is_collection(path.parent)


def source_of(path: Path) -> Path:
    """Collection that a file is a part of; else the file itself."""
    return path.parent if is_part(path) else path


def file_names(paths: Iterable[Path]) -> list[str]:
    """Short names of files that are all different: the stem, the name, or the whole path."""
    every = list(paths)
    for names in ([path.stem for path in every], [path.name for path in every]):
        if len(set(names)) == len(every):
            return names
    return [str(path) for path in every]
