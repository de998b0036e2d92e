"""Writers of AnnData files (.h5ad, .zarr) that are larger than memory: some cells at a time."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
from numpy.typing import NDArray

from cellvae.core.files.output_files import replace_atomically
from cellvae.data.files.array_writer import ArrayWriter
from cellvae.errors import InvalidOptionError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    import pandas as pd

SUFFIXES = (".h5ad", ".zarr")
CHUNK_BYTES = 2**22
"""Size of a chunk of an array in the file, the unit of reading and writing."""


MARGIN_BYTES = 2**16
"""Space in a file for what is not an array."""
NAME_BYTES = 64
"""Space in a file for the name of a cell."""


def check_new_file(path: str | Path, *, overwrite: bool = False) -> Path:
    """Path of an AnnData file that can be created, or replaced with `overwrite`.

    Raises
    ------
    InvalidOptionError
        If its name does not end in `.h5ad` or `.zarr`, it exists already, its folder does not
        exist, or no installed package writes it.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise InvalidOptionError(f"Expected a file that ends in .h5ad or .zarr; got '{path}'.")
    if file.exists() and not overwrite:
        raise InvalidOptionError(
            f"Expected a file that does not exist yet; '{path}' does. Remove it, or give another "
            "name."
        )
    if file.suffix == ".zarr" and not has_zarr():
        raise InvalidOptionError(
            f"Expected the package zarr, version 3 or later, for '{path}'. Install it, or give a "
            "file that ends in .h5ad."
        )
    if not file.parent.is_dir():
        raise InvalidOptionError(
            f"Expected an existing folder for '{path}'; '{file.parent}' is none. Create it first."
        )
    return file


def has_zarr() -> bool:
    """Whether zarr is installed in a version that AnnData files can be written with."""
    try:
        return int(version("zarr").partition(".")[0]) >= 3
    except PackageNotFoundError:
        return False


class StreamingWriter:
    """Context manager that creates an AnnData file; the file appears under its name on success.

    Until then it has a temporary name in the same folder, and it is removed after an exception.

    Parameters
    ----------
    path
        File to be created, as :func:`check_new_file` returns it.
    cells
        Names of the cells. Where they repeat, cells are numbered and the names become the column
        `cell` of `obs`.
    genes
        Names of the genes; none for a file without `X`.

    Raises
    ------
    OutputError
        If the file cannot be written, as on a full disk.
    """

    def __init__(self, path: Path, cells: pd.Index, genes: Sequence[str] = ()) -> None:
        self.path = path
        self.cells = cells
        self.genes = genes
        self.store: Any = None
        self.arrays: dict[str, ArrayWriter] = {}
        self.n_reserved = 0

    def __enter__(self) -> Self:
        import pandas as pd
        from anndata.io import write_elem

        names = self.cells.astype(str)
        obs = pd.DataFrame(index=names)
        if not names.is_unique:
            numbers = [str(number) for number in range(len(names))]
            obs = pd.DataFrame({"cell": names.to_numpy()}, index=numbers)
        with write_errors(self.path), contextlib.ExitStack() as stack:
            self.partial = stack.enter_context(replace_atomically(self.path))
            self.store = self.open_store(self.partial, len(names) * NAME_BYTES + MARGIN_BYTES)
            if self.is_h5ad:
                stack.push(self.close_store)
            self.store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            write_elem(self.store, "obs", obs)
            write_elem(self.store, "var", pd.DataFrame(index=list(self.genes)))
            self.create_arrays()
            stack.push(self.flush_arrays)
            self.on_exit = stack.pop_all()
        return self

    def create_arrays(self) -> None:
        """Create the arrays that are written later; for subclasses."""

    @property
    def is_h5ad(self) -> bool:
        """Whether the file is HDF5; otherwise it is a zarr folder."""
        return self.path.suffix == ".h5ad"

    def open_store(self, path: Path, n_bytes: int) -> Any:
        """Root group of the new file, of h5py or zarr, on a disk that has some space."""
        if self.is_h5ad:
            import h5py

            reserve_space(path, n_bytes)
            return h5py.File(path, "w")
        import zarr

        # Format 2 is what AnnData writes, and what all of its versions read.
        return zarr.open_group(path, mode="w", zarr_format=2)

    def close_store(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Close the HDF5 file; after an error, what cannot be written any more is left."""
        if error_type is not None:
            with contextlib.suppress(Exception):
                self.store.close()
            return
        self.store.flush()
        size = self.store.id.get_filesize()
        self.store.close()
        os.truncate(self.partial, size)

    def create_array(
        self, name: str, where: str, shape: tuple[int, ...], dtype: Any = np.float32
    ) -> None:
        """Create an array somewhere in the file, with one row for each cell."""
        row_bytes = np.dtype(dtype).itemsize * math.prod(shape[1:])
        chunk_rows = max(1, min(shape[0], CHUNK_BYTES // row_bytes))
        create = self.store.create_dataset if self.is_h5ad else self.store.create_array
        array = create(where, shape=shape, dtype=np.dtype(dtype), chunks=(chunk_rows, *shape[1:]))
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        self.arrays[name] = ArrayWriter(array, chunk_rows)
        if self.is_h5ad:
            self.n_reserved += -(-shape[0] // chunk_rows) * chunk_rows * row_bytes
            self.store.flush()
            size = self.store.id.get_filesize()
            reserve_space(self.partial, size + self.n_reserved + MARGIN_BYTES)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with write_errors(self.path):
            self.on_exit.__exit__(error_type, error, traceback)

    def flush_arrays(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Write the rows that wait for a whole chunk, unless there was an error."""
        for array in self.arrays.values() if error_type is None else ():
            array.flush()


def reserve_space(path: Path, size: int) -> None:
    """Reserve the disk space of an HDF5 file, so that a full disk is noticed before it is written.

    Python crashes when an HDF5 file is closed that could not be written to its end.

    Raises
    ------
    OSError
        If there is not as much space.
    """
    if sys.platform != "linux":
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.posix_fallocate(handle, 0, size)
    finally:
        os.close(handle)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Context in which errors of writing name the file.

    Raises
    ------
    OutputError
        In place of what h5py and zarr raise.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"Expected to write '{path}'; got an error: {error}. Is its disk full? Nothing was "
            "left there. Free space or give a file on another disk, and ask again."
        ) from error


@final
class MatrixWriter(StreamingWriter):
    """Writer of an AnnData file with a dense matrix `X`, [cells, genes].

    Parameters
    ----------
    path, cells, genes
        As in :class:`StreamingWriter`.
    tables
        Names of the columns of further values of each cell, by name. Those of `"protein"` are
        `obsm["protein"]`, and their names `uns["protein_names"]`.

    Examples
    --------
    >>> with MatrixWriter(path, cells, genes) as file:  # doctest: +SKIP
    ...     file.write(slice(0, 128), values)
    """

    def __init__(
        self,
        path: Path,
        cells: pd.Index,
        genes: Sequence[str] = (),
        tables: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(path, cells, genes)
        self.tables = dict(tables or {})

    def create_arrays(self) -> None:
        """Create `X`, unless there are no genes, and the tables."""
        from anndata.io import write_elem

        if len(self.genes):
            self.create_array("X", "X", (len(self.cells), len(self.genes)))
        if not self.tables:
            return
        names = {f"{name}_names": np.array(columns) for name, columns in self.tables.items()}
        write_elem(self.store, "uns", names)
        for name, columns in self.tables.items():
            self.create_array(name, f"obsm/{name}", (len(self.cells), len(columns)))
        self.store["obsm"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})

    def write(
        self,
        rows: slice,
        values: NDArray[np.float32],
        tables: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """Write the rows at these positions, [rows, genes], and those of the tables."""
        with write_errors(self.path):
            if len(self.genes):
                self.arrays["X"].write(rows.start, values)
            for name, of_table in (tables or {}).items():
                self.arrays[name].write(rows.start, of_table)


@final
class CellWriter(StreamingWriter):
    """Writer of an AnnData file without `X`, with arrays in `obsm` and columns in `obs`.

    The first cells that are written decide what there is, and of which type.

    Parameters
    ----------
    path, cells
        As in :class:`StreamingWriter`.
    categories
        Categories of the columns of `obs` that are categorical, whose values are written as codes.

    Examples
    --------
    >>> with CellWriter(path, cells) as file:  # doctest: +SKIP
    ...     file.write(slice(0, 128), {"latent": means, "kl": divergences})
    """

    def __init__(
        self, path: Path, cells: pd.Index, categories: Mapping[str, pd.Index] | None = None
    ) -> None:
        super().__init__(path, cells)
        self.categories = dict(categories or {})

    def write(self, rows: slice, values: Mapping[str, NDArray[Any]]) -> None:
        """Write the values of the cells at these positions, by name.

        A value per cell is a column of `obs`, several are an entry of `obsm`.
        """
        with write_errors(self.path):
            if not self.arrays:
                self.create_values(values)
            for name, array in values.items():
                self.arrays[name].write(rows.start, array)

    def create_values(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Create the entries of `obsm` and the columns of `obs`."""
        for name, array in values.items():
            if name in self.categories:
                self.create_categories(name)
                continue
            where = f"obs/{name}" if array.ndim == 1 else f"obsm/{name}"
            self.create_array(name, where, (len(self.cells), *array.shape[1:]), array.dtype)
        obs = self.store["obs"]
        columns = [name for name, array in values.items() if array.ndim == 1]
        obs.attrs["column-order"] = [*map(str, obs.attrs["column-order"]), *columns]
        if "obsm" in self.store:
            self.store["obsm"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})

    def create_categories(self, name: str) -> None:
        """Create a categorical column of `obs`."""
        import pandas as pd
        from anndata.io import write_elem

        categories = self.categories[name]
        codes = pd.Categorical.from_codes(np.zeros(len(self.cells), np.int8), categories)
        write_elem(self.store["obs"], name, codes)
        array = self.store[f"obs/{name}/codes"]
        chunks = array.chunks
        self.arrays[name] = ArrayWriter(array, chunks[0] if chunks else CHUNK_BYTES // 4)
