"""Reading and writing of h5ad files as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellvae.data.files.cell_files import CellFiles
from cellvae.data.storage.count_matrix import layer_names
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData


def read_h5ad(path: Path) -> AnnData:
    """AnnData in an h5ad file.

    Raises
    ------
    InvalidDataError
        If the file is not an AnnData file.
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


def write_h5ad(adata: AnnData, path: Path, kwargs: Mapping[str, Any]) -> None:
    """Write an AnnData to a file without changing it.

    Parameters
    ----------
    adata
        AnnData in memory or in backed mode; of cells in files, the tables without the counts.
    path
        Path of the file.
    kwargs
        Keyword arguments of `AnnData.write_h5ad`, for an AnnData in memory.
    """
    if isinstance(adata, CellFiles):
        adata.tables_in_memory().write_h5ad(path, **kwargs)
    elif adata.isbacked:
        # write_h5ad would switch the AnnData to the new file.
        adata.copy(path).file.close()
    else:
        copy = shallow_copy(adata)
        copy.obs, copy.var = use_object_strings(copy.obs), use_object_strings(copy.var)
        copy.write_h5ad(path, **kwargs)


def use_object_strings(table: pd.DataFrame) -> pd.DataFrame:
    """Table with strings as objects: older readers do not support pandas' string dtype."""
    import pandas as pd

    if isinstance(table.index.dtype, pd.StringDtype):
        table.index = table.index.astype(object)
    columns = [name for name, dtype in table.dtypes.items() if isinstance(dtype, pd.StringDtype)]
    return table.astype(dict.fromkeys(columns, object)) if columns else table


def shallow_copy(adata: AnnData) -> AnnData:
    """AnnData with the same arrays but copies of `obs` and `var`, which writing would change."""
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
