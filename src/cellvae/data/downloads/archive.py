"""Extraction of a 10x Genomics matrix from a tar archive: its three files, and nothing else."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cellvae.errors import InvalidDataError, UnsafeFileError

MATRIX = ("matrix.mtx", "matrix.mtx.gz")
ANNOTATIONS = ("genes.tsv", "features.tsv", "barcodes.tsv")
FILE_NAMES = frozenset((*MATRIX, *ANNOTATIONS, *(f"{name}.gz" for name in ANNOTATIONS)))


@contextmanager
def extract_matrix(archive: Path, *, keep: bool) -> Iterator[Path]:
    """Folder with the matrix of an archive and the names of its genes and cells.

    Parameters
    ----------
    archive
        The `.tar.gz` file.
    keep
        Whether the folder stays next to the archive for later reads. Otherwise it is temporary.

    Raises
    ------
    InvalidDataError
        If the archive is corrupt, or does not have exactly one matrix.
    UnsafeFileError
        If a path in it leads out of the folder.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent if keep else None) as name:
        folder = Path(name, "matrix")
        folder.mkdir()
        try:
            with tarfile.open(archive) as tar:
                members = matrix_members(tar, archive)
                target = archive.parent / PurePosixPath(members[0].name).parent
                if not keep or not has_matrix(target):
                    for member in members:
                        copy_member(tar, member, folder)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidDataError(
                f"Expected a .tar.gz archive in '{archive}'; it cannot be read: {error}. Delete it "
                "and it is downloaded again."
            ) from error
        if keep:
            move_matrix(folder, target)
        yield target if keep else folder


def move_matrix(extracted: Path, target: Path) -> None:
    """Move extracted files to their folder, the matrix last: a folder without it is incomplete."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(extracted.iterdir(), key=lambda file: file.name in MATRIX):
        file.replace(target / file.name)


def matrix_members(tar: tarfile.TarFile, archive: Path) -> list[tarfile.TarInfo]:
    """Files of the only matrix in an archive."""
    files = [member for member in tar if member.isfile()]
    files = [file for file in files if PurePosixPath(file.name).name in FILE_NAMES]
    folders = {
        PurePosixPath(file.name).parent for file in files if PurePosixPath(file.name).name in MATRIX
    }
    if len(folders) != 1:
        found = ", ".join(sorted(map(str, folders))) or "none"
        raise InvalidDataError(
            f"Expected one matrix.mtx in '{archive}'; got {found}. Extract it and read the folder "
            "that you want: scanpy.read_10x_mtx(folder)."
        )
    (folder,) = folders
    if folder.is_absolute() or ".." in folder.parts:
        raise UnsafeFileError(
            f"Expected paths within the folder in '{archive}'; got '{folder}'. Nothing was written."
        )
    return [file for file in files if PurePosixPath(file.name).parent == folder]


def copy_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write one file of an archive into a folder, under its bare name."""
    content = tar.extractfile(member)
    assert content is not None  # It is a regular file.
    with content, (folder / PurePosixPath(member.name).name).open("wb") as copy:
        shutil.copyfileobj(content, copy)


def has_matrix(folder: Path) -> bool:
    """Whether a folder has a matrix file."""
    return any((folder / name).is_file() for name in MATRIX)


def find_extracted_matrix(folder: Path, prefix: str) -> Path | None:
    """The only folder with a matrix below a folder whose path has a prefix; None if not unique.

    Parameters
    ----------
    folder
        Folder to search.
    prefix
        Prefix of the path within the folder: `filtered`, `raw`, or empty for any.
    """
    if not folder.is_dir():
        return None
    found = {
        path.parent
        for name in MATRIX
        for path in folder.rglob(name)
        if str(path.relative_to(folder)).startswith(prefix)
    }
    return found.pop() if len(found) == 1 else None
