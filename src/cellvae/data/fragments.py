"""Conversion of ATAC-seq read counts to fragment counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cellvae.data.setup.tables.cells import check_is_anndata
from cellvae.data.storage.count_matrix import layer_names
from cellvae.errors import InvalidDataError, UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


def reads_to_fragments(
    adata: AnnData, read_layer: str | None = None, fragment_layer: str = "fragments"
) -> None:
    """Write fragment counts into a layer: half the reads, rounded up.

    Each fragment is sequenced from both ends, so even read counts are far more frequent than odd
    ones; fragment counts have a distribution that a Poisson model describes (Martens et al. 2023).

    Parameters
    ----------
    adata
        Cells with read counts.
    read_layer
        Layer with the reads; None for `X`.
    fragment_layer
        Layer that the fragments are written into.

    Raises
    ------
    UnknownKeyError
        If the layer does not exist.
    InvalidDataError
        If the AnnData is in backed mode, or a value is negative or not an integer.
    """
    from scipy import sparse

    check_is_anndata(adata)
    if adata.isbacked:
        raise InvalidDataError(
            "Expected cells in memory; got an AnnData in backed mode. Load it: adata.to_memory()."
        )
    layers = layer_names(adata)
    if read_layer is not None and read_layer not in layers:
        raise UnknownKeyError(
            f"Expected a layer of adata.layers; got '{read_layer}'."
            f"{did_you_mean(read_layer, layers)} The layers are {quote_names(layers) or 'none'}."
        )
    reads = adata.X if read_layer is None else adata.layers[read_layer]
    values = reads.data if sparse.issparse(reads) else np.asarray(reads)
    if values.size and (values.min() < 0 or (np.rint(values) != values).any()):
        raise InvalidDataError(
            "Expected reads to be whole numbers of 0 or more; got others. Give the layer with the "
            "raw reads: read_layer=..."
        )
    if sparse.issparse(reads):
        fragments = reads.copy()
        fragments.data = np.ceil(values / 2).astype(values.dtype)
    else:
        fragments = np.ceil(values / 2).astype(values.dtype)
    adata.layers[fragment_layer] = fragments
