"""Reading and writing of h5mu files as a whole, and of h5ad or h5mu files by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.core.options import check_kwargs
from cellvae.data.files.h5ad import read_h5ad, shallow_copy, use_object_strings, write_h5ad
from cellvae.data.mudata_adapter import import_mudata, is_mudata, keep_columns, make_mudata
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

CELL_FILE_SUFFIXES = (".h5ad", ".h5mu")
"""Ends of the names of files of cells: an AnnData, and a MuData."""
WRITE_KWARGS = ("compression", "compression_opts")
"""Keyword arguments of `MuData.write_h5mu`."""


def read_h5mu(path: Path) -> Any:
    """MuData in an h5mu file.

    Raises
    ------
    InvalidDataError
        If the file is not a MuData file.
    ImportError
        If the package mudata is not installed.
    """
    mudata = import_mudata()
    try:
        with keep_columns(mudata):
            cells = mudata.read_h5mu(path)
        if not cells.mod:
            raise ValueError("it has no modalities")
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InvalidDataError(
            f"Expected a MuData (.h5mu) in '{path}'; it cannot be read: {error}"
        ) from error
    return cells


def write_h5mu(mdata: Any, path: Path, kwargs: Mapping[str, Any]) -> None:
    """Write a MuData to a file without changing it.

    Parameters
    ----------
    mdata
        MuData in memory or in backed mode, whose counts are then read.
    path
        Path of the file.
    kwargs
        Keyword arguments of `MuData.write_h5mu`: `compression` and `compression_opts`.

    Raises
    ------
    UnknownOptionError
        If there is another keyword.
    """
    check_kwargs(kwargs, WRITE_KWARGS, "a MuData")
    mudata = import_mudata()
    tables = {name: writable_copy(table) for name, table in mdata.mod.items()}
    copy = make_mudata(tables, mdata)
    with keep_columns(mudata):
        copy.obs = use_object_strings(copy.obs)
        copy.write_h5mu(path, **kwargs)


def writable_copy(table: AnnData) -> AnnData:
    """Copy of an AnnData in memory with the same arrays, and strings that older readers know."""
    copy = shallow_copy(table.to_memory() if table.isbacked else table)
    copy.obs, copy.var = use_object_strings(copy.obs), use_object_strings(copy.var)
    return copy


def cell_file_name(cells: Any) -> str:
    """Name of a file for the cells of a model, by their type; the one that scvi-tools gives it."""
    return "mdata.h5mu" if is_mudata(cells) else "adata.h5ad"


def read_cells(path: Path) -> Any:
    """AnnData or MuData in a file, by the end of its name.

    Raises
    ------
    InvalidDataError
        If the file is not what its name says.
    ImportError
        If it is a MuData, and the package mudata is not installed.
    """
    return read_h5mu(path) if path.suffix == ".h5mu" else read_h5ad(path)


def write_cells(cells: Any, path: Path, kwargs: Mapping[str, Any]) -> None:
    """Write an AnnData or a MuData to a file without changing it."""
    if is_mudata(cells):
        write_h5mu(cells, path, kwargs)
    else:
        write_h5ad(cells, path, kwargs)
