"""Modalities that were not measured in all cells of a MuData: the counts of the others are zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.mudata_adapter import is_mudata
from cellvae.data.setup.tables.cells import table_of
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def table_of_all_cells(cells: Any, modality: str | None, layer: str | None) -> AnnData:
    """AnnData of a modality, with all cells of the whole in its order and zeros for absent ones.

    Parameters
    ----------
    cells
        AnnData or MuData.
    modality
        Name of the modality; None for an AnnData.
    layer
        Layer of the counts, the only one that a result with absent cells has; None for `X`.

    Raises
    ------
    UnknownKeyError
        If there is no such modality or layer.
    InvalidDataError
        If cells are absent and the counts are in a file.
    """
    if modality is None or not is_mudata(cells) or modality not in cells.mod:
        return table_of(cells, modality, has_features=True)
    table: AnnData = cells.mod[modality]
    if not len(cells.obs_names.difference(table.obs_names)):
        return table_of(cells, modality, has_features=True)
    from anndata import AnnData

    matrix = count_matrix(table, layer)
    if matrix.on_disk:
        raise InvalidDataError(
            f"Expected counts in memory, or all cells of the MuData in the modality '{modality}'; "
            f"got a file with {table.n_obs:,} of {cells.n_obs:,} cells. Load it with "
            "mudata.read(path)."
        )
    rows = table.obs_names.get_indexer(cells.obs_names)
    values = insert_zero_rows(matrix.values, rows)
    layers = {} if layer is None else {layer: values}
    obs: pd.DataFrame = cells.obs[[]]
    return AnnData(values if layer is None else None, obs=obs, var=table.var, layers=layers)


def insert_zero_rows(
    values: NDArray[Any] | sparse.spmatrix, rows: NDArray[np.int64]
) -> NDArray[Any] | sparse.csr_matrix:
    """Matrix with these rows of another one, and with rows of zeros.

    Parameters
    ----------
    values
        Dense or sparse matrix.
    rows
        Index of each row of the result in `values`; -1 for zeros.
    """
    present = rows >= 0
    if not sparse.issparse(values):
        filled = np.zeros((len(rows), values.shape[1]), dtype=values.dtype)
        filled[present] = values[rows[present]]
        return filled
    found = sparse.csr_matrix(values)
    if not np.array_equal(rows[present], np.arange(found.shape[0])):
        found = found[rows[present]]
    lengths = np.zeros(len(rows), dtype=found.indptr.dtype)
    lengths[present] = np.diff(found.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(found.indptr.dtype)
    shape = (len(rows), found.shape[1])
    return sparse.csr_matrix((found.data, found.indices, indptr), shape=shape)
