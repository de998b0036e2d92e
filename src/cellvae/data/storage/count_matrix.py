"""The matrix of an AnnData that holds the counts, with the rows and columns to be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.anndata_adapter import parent_of_view
from cellvae.data.storage.matrix_files.backed_matrix import backed_matrix
from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix
from cellvae.errors import InvalidDataError, UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class CountMatrix:
    """Count matrix of an AnnData, [cells, genes], in memory or on disk.

    `cells` and `genes` are the indices of the rows and columns of `values` to be read; None means
    all, in order. `cells` is set for a view of an AnnData in backed mode only: any other view has
    its own matrix. `where` and `advice` are parts of error messages.
    """

    values: Any
    where: str
    advice: str
    cells: NDArray[np.int64] | None = None
    genes: NDArray[np.int64] | None = None

    @property
    def on_disk(self) -> bool:
        """Whether the values are in a file and are read on access."""
        return not isinstance(self.values, np.ndarray) and not sparse.issparse(self.values)


def count_matrix(adata: AnnData, layer: str | None = None) -> CountMatrix:
    """Count matrix in `adata.X` or in a layer.

    Raises
    ------
    UnknownKeyError
        If there is no such layer.
    InvalidDataError
        If cells cannot be read from a matrix of this type.
    """
    layers = layer_names(adata)
    where = "adata.X" if layer is None else f"adata.layers['{layer}']"
    advice = "The models need raw counts. Name the layer that holds them with layer=..."
    advice += f" (layers here: {quote_names(layers)})." if layers else " or put them into adata.X."
    if layer is not None and layer not in layers:
        raise UnknownKeyError(
            f"Expected a layer of the AnnData; got '{layer}'.{did_you_mean(layer, layers)} "
            f"The layers are {quote_names(layers, most=10) or 'none'}."
        )
    cells = genes = None
    if layer is None and adata.isbacked and adata.is_view:
        # A view in backed mode would load its whole matrix; its parent reads only requested cells.
        parent, cells, genes = parent_of_view(adata)
        values = parent.X
    else:
        values = adata.X if layer is None else adata.layers[layer]
    matrix = CountMatrix(values=values, where=where, advice=advice, cells=cells, genes=genes)
    refuse_unreadable(matrix)
    in_file = backed_matrix(values) if matrix.on_disk else None
    return matrix if in_file is None else replace(matrix, values=in_file)


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers, without `None`, the name of `adata.X` since AnnData 0.13."""
    return [str(name) for name in adata.layers if name is not None]


def refuse_unreadable(matrix: CountMatrix) -> None:
    """Raise unless cells can be read from the matrix: dense or CSR or CSC, of real numbers."""
    import h5py
    from anndata.abc import CSCDataset, CSRDataset

    values, where = matrix.values, matrix.where
    if values is None:
        raise InvalidDataError(f"Expected counts in {where}; got nothing there. {matrix.advice}")
    if isinstance(values, np.ma.MaskedArray):
        raise InvalidDataError(
            f"Expected an ordinary matrix in {where}; got a masked array. "
            f"Fill it: {where} = {where}.filled(0)."
        )
    if isinstance(values, CSCDataset):
        raise InvalidDataError(
            f"Expected rows on disk that can be read one by one (dense or CSR) in {where}; got "
            "CSC. Load it with adata.to_memory(), or write the file again with "
            "adata.X = adata.X.tocsr()."
        )
    compressed = sparse.issparse(values) and values.format in ("csr", "csc")
    readable = (np.ndarray, h5py.Dataset, CSRDataset, JoinedMatrix)
    if not compressed and not isinstance(values, readable):
        type_name = f"{type(values).__module__}.{type(values).__name__}"
        raise InvalidDataError(
            f"Expected a numpy array or a CSR or CSC matrix in {where}; got {type_name}. "
            "Convert it, e.g. with adata.to_memory(), numpy.asarray or scipy.sparse.csr_matrix."
        )
    if np.dtype(values.dtype).kind not in "buif":
        raise InvalidDataError(
            f"Expected real numbers in {where}; got values of type {values.dtype}. "
            f"Convert them: {where} = {where}.astype('float32')."
        )
