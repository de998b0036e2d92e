"""CSR and dense matrices whose arrays are datasets of HDF5 or arrays of zarr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.data.storage.matrix_files.csr_rows import CSRRows, concatenate_rows
from cellvae.data.storage.matrix_files.stored_matrix import StoredMatrix, dense_to_rows, read_spans
from cellvae.data.storage.matrix_files.zarr_rows import open_zarr_rows
from cellvae.errors import InvalidDataError

OpenElement = Callable[[], Any]
"""Opens a group or an array of a file. It can be sent to another process, an open file cannot."""
MAX_DENSE_VALUES = 2**24
"""Dense values that are read before they are made sparse."""


class ArrayMatrix(StoredMatrix):
    """Matrix whose element of the file is opened once in every process.

    Parameters
    ----------
    path, where, shape
        As in :class:`StoredMatrix`.
    open_element
        Opens the element.
    """

    def __init__(
        self, path: Path, where: str, shape: tuple[int, int], open_element: OpenElement
    ) -> None:
        super().__init__(path, where, shape)
        self.open_element = open_element
        self.opened: Any = None
        self.readable: dict[str, Any] = {}

    @property
    def element(self) -> Any:
        """Group or array of the matrix in the file."""
        if self.opened is None or is_closed(self.opened):
            self.opened = self.open_element()
        return self.opened

    def array(self, name: str) -> Any:
        """Array of a group by name, or the element itself with an empty one, to read spans of."""
        if name not in self.readable:
            own = self.element[name] if name else self.element
            folder = self.path / own.path if self.path.is_dir() else None
            rows = None if folder is None else open_zarr_rows(folder)
            self.readable[name] = own if rows is None else rows
        return self.readable[name]

    def __getstate__(self) -> dict[str, Any]:
        """State without the open file, which another process cannot use."""
        return self.__dict__ | {"opened": None, "readable": {}}


@final
class CSRMatrix(ArrayMatrix):
    """CSR group: data, indices and indptr. The pointers are in memory, 8 bytes per cell."""

    def __init__(
        self, path: Path, where: str, shape: tuple[int, int], open_element: OpenElement
    ) -> None:
        super().__init__(path, where, shape, open_element)
        self.indptr = np.asarray(self.element["indptr"][:], dtype=np.int64)
        self.chunk_values = chunk_length(self.element["data"])
        self.check_pointers()
        self.check_chunks()

    def check_chunks(self) -> None:
        """Raise if a zarr array lacks chunks, which would be read as zeros.

        A chunk that has nothing but zeros is not stored either. Of counts there is none, and of
        gene indices only the last one, if it is the first gene of a single cell.
        """
        data, indices = self.element["data"], self.element["indices"]
        n_lacking = count_lacking(data)
        if not n_lacking and count_lacking(indices):
            is_single = int(indices.shape[0]) % indices.chunks[0] == 1
            n_lacking = count_lacking(indices) - int(is_single and indices[-1] == 0)
        if n_lacking:
            raise InvalidDataError(
                f"Expected all chunks of {self.where}; {n_lacking:,} are missing. Was the folder "
                "copied to its end? Copy or write it again."
            )

    def check_pointers(self) -> None:
        """Raise if the pointers do not fit the arrays."""
        n_data, n_indices = (int(self.element[name].shape[0]) for name in ("data", "indices"))
        pointers = self.indptr
        if (
            len(pointers) != self.n_cells + 1
            or pointers[0] != 0
            or (np.diff(pointers) < 0).any()
            or not pointers[-1] == n_data == n_indices
        ):
            raise InvalidDataError(
                f"Expected {self.n_cells + 1:,} increasing row pointers up to the number of values "
                f"in {self.where}; got {len(pointers):,} up to {int(pointers.max(initial=0)):,} "
                f"for {n_data:,} values and {n_indices:,} gene indices. The file is damaged or was "
                "not written to its end: write it again."
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""
        return np.dtype(self.element["data"].dtype)

    def values_before(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these cells."""
        return self.indptr[cells]

    def read_runs(self, runs: Sequence[tuple[int, int]]) -> CSRRows:
        """Cells of these runs, each from a first cell to before an end."""
        pointers = self.indptr
        spans = [(int(pointers[first]), int(pointers[end])) for first, end in runs]
        sizes = [np.diff(pointers[first : end + 1]) for first, end in runs]
        indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
        data = read_spans(self.array("data"), spans)
        indices = read_spans(self.array("indices"), spans)
        return CSRRows(data, indices.astype(np.int32, copy=False), indptr)


@final
class DenseMatrix(ArrayMatrix):
    """Dense array, [cells, genes], whose cells become sparse as they are read."""

    def __init__(
        self, path: Path, where: str, shape: tuple[int, int], open_element: OpenElement
    ) -> None:
        super().__init__(path, where, shape, open_element)
        self.chunk_values = chunk_length(self.element) * self.n_genes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""
        return np.dtype(self.element.dtype)

    def values_before(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these cells."""
        return cells * self.n_genes

    def read_runs(self, runs: Sequence[tuple[int, int]]) -> CSRRows:
        """Cells of these runs, each from a first cell to before an end."""
        most = max(1, MAX_DENSE_VALUES // max(1, self.n_genes))
        spans = [
            (start, min(start + most, end))
            for first, end in runs
            for start in range(first, end, most)
        ]
        parts: list[CSRRows] = []
        group: list[tuple[int, int]] = []
        n_in_group = 0
        for span in spans:
            if group and n_in_group + span[1] - span[0] > most:
                parts.append(dense_to_rows(read_spans(self.array(""), group)))
                group, n_in_group = [], 0
            group.append(span)
            n_in_group += span[1] - span[0]
        if group or not parts:
            parts.append(dense_to_rows(read_spans(self.array(""), group)))
        return concatenate_rows(parts)


def chunk_length(array: Any) -> int:
    """Entries along the first dimension that are stored as one piece; 1 without compression."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return 1
    compressed = getattr(array, "compression", True)
    return int(chunks[0]) if compressed else 1


def count_lacking(array: Any) -> int:
    """Chunks of a zarr array that its folder does not have; 0 for a dataset of HDF5."""
    n_stored = getattr(array, "nchunks_initialized", None)
    # Of a last shard that is not full zarr counts chunks beyond the end of the array as stored.
    return 0 if n_stored is None else max(0, int(array.nchunks) - int(n_stored))


def is_closed(element: Any) -> bool:
    """Whether an element is of an HDF5 file that was closed since, as an AnnData's may be."""
    import h5py

    return isinstance(element, h5py.Group | h5py.Dataset) and not element
