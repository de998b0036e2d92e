"""Matrix of cells and genes written into an AnnData file part by part."""

from __future__ import annotations

import math
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import pandas as pd

SUFFIXES = (".h5ad", ".zarr")
CHUNK_BYTES = 2**22
"""Size of what is read and written at a time within the file."""


def check_new_file(path: str | Path, *, overwrite: bool = False) -> Path:
    """Path of an AnnData file that can be made, or replaced with `overwrite`.

    Raises
    ------
    InvalidOptionError
        If its name ends in another way than `.h5ad` or `.zarr`, it is there already, its folder is
        not, or no package writes it.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise InvalidOptionError(f"Expected a file that ends in .h5ad or .zarr; got '{path}'.")
    if file.exists() and not overwrite:
        raise InvalidOptionError(
            f"Expected a file that is not there yet; '{path}' is. Remove it, or give another name."
        )
    if file.suffix == ".zarr" and not has_zarr():
        raise InvalidOptionError(
            f"Expected the package zarr, version 3 or later, for '{path}'. Install it, or give a "
            "file that ends in .h5ad."
        )
    if not file.parent.is_dir():
        raise InvalidOptionError(f"Expected a folder '{file.parent}' for '{path}'; there is none.")
    return file


def has_zarr() -> bool:
    """Whether a package is there that writes zarr files."""
    try:
        return int(version("zarr").partition(".")[0]) >= 3
    except PackageNotFoundError:
        return False


@final
class MatrixFile:
    """AnnData file whose `X` is written part by part; it has its name only once it is complete.

    Parameters
    ----------
    path
        File to be made, as :func:`check_new_file` gives it.
    cells, genes
        Names of rows and columns; without genes there is no `X`. Where names of cells repeat, rows
        are numbered and the names become the column `cell`.

    Examples
    --------
    >>> with MatrixFile(path, cells, genes) as file:  # doctest: +SKIP
    ...     file.write(slice(0, 128), values)
    """

    def __init__(self, path: Path, cells: pd.Index, genes: Sequence[str]) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self.cells = cells
        self.genes = genes
        self.store: Any = None
        self.values: Any = None

    def __enter__(self) -> MatrixFile:
        import pandas as pd
        from anndata.io import write_elem

        names = self.cells.astype(str)
        obs = pd.DataFrame(index=names)
        if not names.is_unique:
            rows = [str(row) for row in range(len(names))]
            obs = pd.DataFrame({"cell": names.to_numpy()}, index=rows)
        self.store = self.open_store()
        self.store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(self.store, "obs", obs)
        write_elem(self.store, "var", pd.DataFrame(index=list(self.genes)))
        if len(self.genes):
            self.values = self.empty_array("X", (len(names), len(self.genes)))
        return self

    @property
    def is_h5ad(self) -> bool:
        """Whether the file is one of HDF5; otherwise it is a folder of zarr."""
        return self.path.suffix == ".h5ad"

    def open_store(self) -> Any:
        """New store, of h5py or zarr."""
        if self.is_h5ad:
            import h5py

            return h5py.File(self.partial, "w")
        import zarr

        # The older format is what AnnData writes, and what all of its versions read.
        return zarr.open_group(self.partial, mode="w", zarr_format=2)

    def empty_array(self, name: str, shape: tuple[int, ...]) -> Any:
        """Array in the store that has no values yet, with one row for each cell."""
        rows = max(1, min(shape[0], CHUNK_BYTES // (4 * math.prod(shape[1:]))))
        words: Any = {"shape": shape, "dtype": "float32", "chunks": (rows, *shape[1:])}
        create = self.store.create_dataset if self.is_h5ad else self.store.create_array
        array = create(name, **words)
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return array

    def write(self, rows: slice, values: NDArray[np.float32]) -> None:
        """Write the rows at these positions."""
        self.values[rows] = values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_h5ad:
            self.store.close()
        if kind is None:
            if self.path.is_dir():
                shutil.rmtree(self.path)  # a folder takes the place of an empty one only
            self.partial.replace(self.path)
        elif self.partial.is_dir():
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            self.partial.unlink(missing_ok=True)
