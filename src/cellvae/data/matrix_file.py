"""Matrix of cells and genes written into an AnnData file part by part."""

from __future__ import annotations

import os
import shutil
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


def check_new_file(path: str | Path) -> Path:
    """Path of an AnnData file that can be made.

    Raises
    ------
    InvalidOptionError
        If its name ends in another way than `.h5ad` or `.zarr`, it is there already, or its folder
        is not.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise InvalidOptionError(f"Expected a file that ends in .h5ad or .zarr; got '{path}'.")
    if file.exists():
        raise InvalidOptionError(
            f"Expected a file that is not there yet; '{path}' is. Remove it, or give another name."
        )
    if not file.parent.is_dir():
        raise InvalidOptionError(f"Expected a folder '{file.parent}' for '{path}'; there is none.")
    return file


@final
class MatrixFile:
    """AnnData file whose `X` is written part by part; it has its name only once it is complete.

    Parameters
    ----------
    path
        File to be made, as :func:`check_new_file` gives it.
    cells, genes
        Names of rows and columns. Where names of cells repeat, rows are numbered and the names
        become the column `cell`.

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
        from anndata import AnnData

        unique = self.cells.is_unique
        obs = pd.DataFrame(index=self.cells.astype(str) if unique else None)
        if not unique:
            rows = [str(row) for row in range(len(self.cells))]
            obs = pd.DataFrame({"cell": self.cells.astype(str).to_numpy()}, index=rows)
        # A gene that was asked for twice is there twice.
        names = AnnData(obs=obs, var=pd.DataFrame(index=list(self.genes)))
        shape = (len(self.cells), len(self.genes))
        rows_of_chunk = max(1, min(shape[0], CHUNK_BYTES // (4 * shape[1])))
        words: Any = {"shape": shape, "dtype": "float32", "chunks": (rows_of_chunk, shape[1])}
        if self.path.suffix == ".h5ad":
            import h5py

            names.write_h5ad(self.partial)
            self.store = h5py.File(self.partial, "r+")
            self.values = without_matrix(self.store).create_dataset("X", **words)
        else:
            import zarr

            names.write_zarr(self.partial)
            self.store = zarr.open_group(self.partial, mode="r+")
            self.values = without_matrix(self.store).create_array("X", **words)
        self.values.attrs["encoding-type"] = "array"
        self.values.attrs["encoding-version"] = "0.2.0"
        return self

    def write(self, rows: slice, values: NDArray[np.float32]) -> None:
        """Write the rows at these positions."""
        self.values[rows] = values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.path.suffix == ".h5ad":
            self.store.close()
        if kind is None:
            self.partial.rename(self.path)
        elif self.partial.is_dir():
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            self.partial.unlink(missing_ok=True)


def without_matrix(store: Any) -> Any:
    """Store of an AnnData in which there is no matrix any more."""
    if "X" in store:
        del store["X"]
    return store
