"""Values of cells, such as their latents, written into an AnnData file part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from cellvae.data.files.matrix_writer import MatrixFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import pandas as pd


@final
class EmbeddingFile:
    """AnnData file without `X` whose `obsm` and `obs` are written part by part.

    Like a :class:`~cellvae.data.files.matrix_writer.MatrixFile` it has its name only once it is
    complete.

    Parameters
    ----------
    path
        File to be made.
    cells
        Names of the cells.
    columns
        Number of columns of each entry of `obsm`; 0 for a column of `obs`.

    Examples
    --------
    >>> with EmbeddingFile(path, cells, {"latent": 10, "kl": 0}) as file:  # doctest: +SKIP
    ...     file.write(slice(0, 128), {"latent": means, "kl": divergences})
    """

    def __init__(self, path: Path, cells: pd.Index, columns: Mapping[str, int]) -> None:
        self.file = MatrixFile(path, cells, ())
        self.columns = columns
        self.values: dict[str, Any] = {}

    def __enter__(self) -> EmbeddingFile:
        self.file.__enter__()
        obs, n_cells = self.file.store["obs"], len(self.file.cells)
        for name, width in self.columns.items():
            where = f"obsm/{name}" if width else f"obs/{name}"
            shape = (n_cells, width) if width else (n_cells,)
            self.values[name] = self.file.empty_array(where, shape)
        named = [name for name, width in self.columns.items() if not width]
        obs.attrs["column-order"] = [*map(str, obs.attrs["column-order"]), *named]
        if "obsm" in self.file.store:
            self.file.store["obsm"].attrs.update(
                {"encoding-type": "dict", "encoding-version": "0.1.0"}
            )
        return self

    def write(self, rows: slice, values: Mapping[str, NDArray[np.floating]]) -> None:
        """Write the values of the cells at these positions."""
        for name, part in values.items():
            self.values[name][rows] = part

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.file.__exit__(kind, error, traceback)
