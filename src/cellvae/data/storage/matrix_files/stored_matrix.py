"""One count matrix in a file, of which runs of consecutive cells are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.matrix_files.csr_rows import CSRRows
from cellvae.data.storage.matrix_files.zarr_rows import ZarrRows
from cellvae.errors import InvalidDataError

MAX_SKIP = 2**13
"""Largest gap between two runs, in values, that is read and discarded instead of a new read."""


class StoredMatrix(ABC):
    """Counts in one file, [cells, genes]; increasing cells are read in few runs.

    Parameters
    ----------
    path
        File or folder of the matrix.
    where
        Its name in error messages, such as `X of 'a.h5ad'`.
    shape
        Number of cells and genes.

    Attributes
    ----------
    chunk_values
        Values that the file stores, and compresses, as one piece; 1 if it has no such pieces.
    """

    chunk_values = 1

    def __init__(self, path: Path, where: str, shape: tuple[int, int]) -> None:
        self.path = path
        self.where = where
        self.n_cells, self.n_genes = shape
        self.signature = file_signature(path)

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""

    @abstractmethod
    def values_before(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these cells."""

    @abstractmethod
    def read_runs(self, runs: Sequence[tuple[int, int]]) -> CSRRows:
        """Cells of these runs, each from a first cell to before an end."""

    @property
    def n_values(self) -> int:
        """Number of stored values."""
        return int(self.values_before(np.array([self.n_cells]))[0])

    @property
    def identity(self) -> tuple[Any, ...]:
        """File, name of the matrix in it, and the file's signature as it was opened."""
        return self.path.absolute(), self.where, self.signature

    def read(self, cells: NDArray[np.int64]) -> CSRRows:
        """Cells with these indices, which increase strictly.

        Raises
        ------
        InvalidDataError
            If the file was replaced since it was opened, or cannot be read.
        """
        self.check_unchanged()
        runs = self.contiguous_runs(cells)
        try:
            rows = self.read_runs(runs)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise InvalidDataError(
                f"Expected to read {len(cells):,} cells of {self.where}; got an error: {error} Is "
                "the file damaged or its disk gone? Training can be resumed once it is back."
            ) from error
        if len(rows.indices) and (
            rows.indices.min() < 0 or int(rows.indices.max()) >= self.n_genes
        ):
            raise InvalidDataError(
                f"Expected gene indices below {self.n_genes:,} in {self.where}; got "
                f"{rows.indices.min():,} to {rows.indices.max():,}. The file is damaged: write it "
                "again."
            )
        if rows.n_cells == len(cells):
            return rows
        read = np.concatenate([np.arange(*run) for run in runs])
        return rows.take(np.searchsorted(read, cells))

    @final
    def contiguous_runs(self, cells: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Runs that cover increasing cells, joined where little lies between them."""
        if not len(cells):
            return []
        skipped = self.values_before(cells[1:]) - self.values_before(cells[:-1] + 1)
        last = np.flatnonzero(skipped > max(MAX_SKIP, self.chunk_values // 2))
        firsts = cells[np.concatenate([[0], last + 1])]
        ends = cells[np.concatenate([last, [len(cells) - 1]])] + 1
        return list(zip(firsts.tolist(), ends.tolist(), strict=True))

    def check_unchanged(self) -> None:
        """Raise if the file was replaced or changed since it was opened.

        Raises
        ------
        InvalidDataError
            If so, or if it is gone.
        """
        try:
            unchanged = file_signature(self.path) == self.signature
        except OSError as error:
            raise InvalidDataError(
                f"Expected '{self.path}' where it was opened; got {error}. Put it back, or open "
                "the files again."
            ) from error
        if not unchanged:
            raise InvalidDataError(
                f"Expected '{self.path}' as it was when it was opened; got another file, or one "
                "that was changed since. Open the files again with open_cells."
            )


def file_signature(path: Path) -> tuple[int, ...]:
    """Size, time of the last change and identity of a file, or of the metadata of a folder."""
    if path.is_dir():
        names = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
        found = [path / name for name in names if (path / name).exists()]
        return tuple(number for each in found or [path] for number in stat_numbers(each))
    return stat_numbers(path)


def stat_numbers(path: Path) -> tuple[int, int, int]:
    """Size, time of the last change and inode of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def dense_to_rows(values: NDArray[Any]) -> CSRRows:
    """Dense values, [cells, genes], in CSR form."""
    matrix = sparse.csr_matrix(values)
    return CSRRows(matrix.data, matrix.indices, matrix.indptr.astype(np.int64))


def read_spans(dataset: Any, spans: Sequence[tuple[int, int]]) -> NDArray[Any]:
    """Increasing spans of a one-dimensional or two-dimensional dataset, concatenated."""
    if isinstance(dataset, ZarrRows):
        return dataset.read_spans(spans)
    if len(spans) == 1:
        return np.asarray(dataset[spans[0][0] : spans[0][1]])
    n = sum(end - first for first, end in spans)
    values = np.empty((n, *dataset.shape[1:]), dtype=dataset.dtype)
    filled = 0
    for first, end in spans:
        values[filled : filled + end - first] = dataset[first:end]
        filled += end - first
    return values
