"""Cells read from a file, and written to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.data.storage.count_matrix import layer_names
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData


def read_h5ad(path: Path) -> AnnData:
    """AnnData in a file.

    Raises
    ------
    InvalidDataError
        If the file is no AnnData.
    """
    import anndata

    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InvalidDataError(
            f"Expected an AnnData (.h5ad) in '{path}'; it cannot be read: {error}"
        ) from error


def write_h5ad(adata: AnnData, path: Path, words: Mapping[str, Any]) -> None:
    """Write cells to a file and leave the AnnData as it is.

    Parameters
    ----------
    adata
        The cells, in memory or on disk.
    path
        The file.
    words
        Further arguments of `AnnData.write_h5ad`, for cells in memory.
    """
    if adata.isbacked:
        # write_h5ad would make it read from the new file from then on.
        adata.copy(path).file.close()
    else:
        copy = shallow_copy(adata)
        copy.obs, copy.var = use_object_strings(copy.obs), use_object_strings(copy.var)
        copy.write_h5ad(path, **words)


def use_object_strings(table: pd.DataFrame) -> pd.DataFrame:
    """Table with ordinary texts in place of pandas' own type, which older readers do not know."""
    import pandas as pd

    if isinstance(table.index.dtype, pd.StringDtype):
        table.index = table.index.astype(object)
    typed = [name for name, kind in table.dtypes.items() if isinstance(kind, pd.StringDtype)]
    return table.astype(dict.fromkeys(typed, object)) if typed else table


def shallow_copy(adata: AnnData) -> AnnData:
    """AnnData with the same arrays and tables of its own: writing turns texts into categories."""
    from anndata import AnnData

    return AnnData(
        X=adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        layers={name: adata.layers[name] for name in layer_names(adata)},
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        raw=adata.raw,
    )
