"""Writers of AnnData files (.h5ad, .zarr) that are larger than memory: some cells at a time."""

from __future__ import annotations

import contextlib
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
from numpy.typing import NDArray

from cellvae.core.files.output_files import replace_atomically
from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import pandas as pd

SUFFIXES = (".h5ad", ".zarr")
CHUNK_BYTES = 2**22
"""Size of a chunk of an array in the file, the unit of reading and writing."""


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
    """

    def __init__(self, path: Path, cells: pd.Index, genes: Sequence[str] = ()) -> None:
        self.path = path
        self.cells = cells
        self.genes = genes
        self.store: Any = None

    def __enter__(self) -> Self:
        import pandas as pd
        from anndata.io import write_elem

        names = self.cells.astype(str)
        obs = pd.DataFrame(index=names)
        if not names.is_unique:
            numbers = [str(number) for number in range(len(names))]
            obs = pd.DataFrame({"cell": names.to_numpy()}, index=numbers)
        with contextlib.ExitStack() as stack:
            partial = stack.enter_context(replace_atomically(self.path))
            self.store = self.open_store(partial)
            if self.is_h5ad:
                stack.callback(self.store.close)
            self.store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            write_elem(self.store, "obs", obs)
            write_elem(self.store, "var", pd.DataFrame(index=list(self.genes)))
            self.create_arrays()
            self.on_exit = stack.pop_all()
        return self

    def create_arrays(self) -> None:
        """Create the arrays that are written later; for subclasses."""

    @property
    def is_h5ad(self) -> bool:
        """Whether the file is HDF5; otherwise it is a zarr folder."""
        return self.path.suffix == ".h5ad"

    def open_store(self, path: Path) -> Any:
        """Root group of the new file, of h5py or zarr."""
        if self.is_h5ad:
            import h5py

            return h5py.File(path, "w")
        import zarr

        # Format 2 is what AnnData writes, and what all of its versions read.
        return zarr.open_group(path, mode="w", zarr_format=2)

    def create_array(self, name: str, shape: tuple[int, ...]) -> Any:
        """New array of single precision in the file, with one row for each cell."""
        chunk_rows = max(1, min(shape[0], CHUNK_BYTES // (4 * math.prod(shape[1:]))))
        create = self.store.create_dataset if self.is_h5ad else self.store.create_array
        array = create(name, shape=shape, dtype="float32", chunks=(chunk_rows, *shape[1:]))
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return array

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.on_exit.__exit__(error_type, error, traceback)


@final
class MatrixWriter(StreamingWriter):
    """Writer of an AnnData file with a dense matrix `X`, [cells, genes].

    Parameters
    ----------
    path, cells, genes
        As in :class:`StreamingWriter`.

    Examples
    --------
    >>> with MatrixWriter(path, cells, genes) as file:  # doctest: +SKIP
    ...     file.write(slice(0, 128), values)
    """

    def create_arrays(self) -> None:
        """Create `X`, unless there are no genes."""
        if len(self.genes):
            self.values = self.create_array("X", (len(self.cells), len(self.genes)))

    def write(self, rows: slice, values: NDArray[np.float32]) -> None:
        """Write the rows at these positions, [rows, genes]."""
        self.values[rows] = values


@final
class EmbeddingWriter(StreamingWriter):
    """Writer of an AnnData file without `X`, with arrays in `obsm` and columns in `obs`.

    Parameters
    ----------
    path, cells
        As in :class:`StreamingWriter`.
    widths
        Number of columns of each entry of `obsm`; 0 for a column of `obs`.

    Examples
    --------
    >>> with EmbeddingWriter(path, cells, {"latent": 10, "kl": 0}) as file:  # doctest: +SKIP
    ...     file.write(slice(0, 128), {"latent": means, "kl": divergences})
    """

    def __init__(self, path: Path, cells: pd.Index, widths: Mapping[str, int]) -> None:
        super().__init__(path, cells)
        self.widths = widths
        self.values: dict[str, Any] = {}

    def create_arrays(self) -> None:
        """Create the entries of `obsm` and the columns of `obs`."""
        n_cells = len(self.cells)
        for name, width in self.widths.items():
            where = f"obsm/{name}" if width else f"obs/{name}"
            shape = (n_cells, width) if width else (n_cells,)
            self.values[name] = self.create_array(where, shape)
        obs = self.store["obs"]
        columns = [name for name, width in self.widths.items() if not width]
        obs.attrs["column-order"] = [*map(str, obs.attrs["column-order"]), *columns]
        if "obsm" in self.store:
            self.store["obsm"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})

    def write(self, rows: slice, values: Mapping[str, NDArray[np.floating]]) -> None:
        """Write the values of the cells at these positions, by name."""
        for name, array in values.items():
            self.values[name][rows] = array
