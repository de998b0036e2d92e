"""Tables of cells in files beside the counts, such as `obsm`, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.matrix_files.open_matrix import close_root, open_root
from cellvae.errors import InvalidDataError, UnknownKeyError, did_you_mean


def read_element(path: Path, name: str, modality: str | None = None) -> Any:
    """Element of an h5ad file or a zarr store, or of a modality of it, as AnnData reads it.

    Raises
    ------
    InvalidDataError
        If there is no such element, or it cannot be read.
    """
    from anndata.io import read_elem

    root = open_root(path, modality)
    try:
        if name == "raw/var" and name not in root:
            raise InvalidDataError(
                f"Expected raw counts in '{path}'; it has no raw. Leave out raw=True, or name a "
                "layer with layer=... of setup_anndata."
            )
        if name not in root:
            raise InvalidDataError(
                f"Expected an AnnData file in '{path}'; it has no '{name}'. Write it with "
                "adata.write_h5ad or adata.write_zarr."
            )
        return read_elem(root[name])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, InvalidDataError):
            raise
        raise InvalidDataError(
            f"Expected to read '{name}' of '{path}'; got an error: {error}. Is the file damaged?"
        ) from error
    finally:
        close_root(root)


def element_names(path: Path, group: str, modality: str | None = None) -> list[str]:
    """Names of the elements of a group of a file or a modality; none without the group."""
    root = open_root(path, modality)
    try:
        return [str(name) for name in root[group]] if group in root else []
    finally:
        close_root(root)


@final
class FileTables(MutableMapping[str, Any]):
    """Tables that all files have, and those that were set since; cells are those of all files.

    Parameters
    ----------
    paths
        Files.
    group
        Their group with the tables, such as `obsm`.
    names
        Names of all cells, the index of tables with columns.
    cells
        Indices of the cells that are meant; None for all.
    modality
        Modality of the files whose tables are meant; None for files of an AnnData.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        group: str,
        names: pd.Index,
        cells: NDArray[np.int64] | None = None,
        modality: str | None = None,
    ) -> None:
        self.paths = paths
        self.group = group
        self.names = names
        self.cells = cells
        self.modality = modality
        self.values_set: dict[str, Any] = {}
        found = [element_names(path, group, modality) for path in paths]
        self.in_files = [name for name in found[0] if all(name in each for each in found)]

    def __getitem__(self, key: str) -> Any:
        """Table of this name."""
        if key in self.values_set:
            return self.values_set[key]
        if key not in self.in_files:
            raise UnknownKeyError(
                f"Expected a name in {self.group}; got '{key}'.{did_you_mean(str(key), self)}"
            )
        name = f"{self.group}/{key}"
        tables = [read_element(path, name, self.modality) for path in self.paths]
        table = stack_tables(tables, f"{self.group}['{key}']")
        if self.cells is not None:
            table = table.iloc[self.cells] if isinstance(table, pd.DataFrame) else table[self.cells]
        if isinstance(table, pd.DataFrame):
            table.index = self.names
        return table

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a table, in memory only; the files do not change."""
        if len(value) != len(self.names):
            raise InvalidDataError(
                f"Expected {len(self.names):,} rows for {self.group}['{key}']; got {len(value):,}."
            )
        self.values_set[key] = value

    def __delitem__(self, key: str) -> None:
        """Remove a table, from memory only."""
        if self.values_set.pop(key, None) is None:
            self.in_files.remove(key)

    def __iter__(self) -> Iterator[str]:
        """Names of the tables."""
        return iter(dict.fromkeys([*self.in_files, *self.values_set]))

    def __len__(self) -> int:
        """Count the tables."""
        return len([*iter(self)])


def stack_tables(tables: Sequence[Any], where: str) -> Any:
    """Tables of several files, one below the other."""
    if len(tables) == 1:
        return tables[0]
    if all(isinstance(table, pd.DataFrame) for table in tables):
        return pd.concat(tables, join="inner")
    widths = {table.shape[1:] for table in tables}
    if len(widths) > 1:
        raise InvalidDataError(
            f"Expected as many columns of {where} in every file; got {sorted(map(str, widths))}."
        )
    if any(sparse.issparse(table) for table in tables):
        return sparse.vstack(tables).tocsr()
    return np.concatenate([np.asarray(table) for table in tables])
