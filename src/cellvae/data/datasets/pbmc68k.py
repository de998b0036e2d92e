"""Data set that is part of the package scanpy, so that nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS_PER_CELL = 1e4
"""Counts per cell that the data of scanpy were scaled to."""


def pbmc68k_reduced() -> AnnData:
    """Blood cells with their counts, 700 cells x 765 genes, and 10 cell types.

    scanpy ships them as `round(log1p(10,000 x count / counts of the cell), 3)`; this is inverted,
    which gives the exact counts: three digits are enough for counts up to 259.

    Returns
    -------
    AnnData
        Counts in `X`, CSR in single precision; cell types in `obs["bulk_labels"]` and clusters
        in `obs["louvain"]`.

    Raises
    ------
    ImportError
        If the package scanpy is not installed.
    InvalidDataError
        If scanpy's data are no longer transformed counts.

    References
    ----------
    Zheng et al., "Massively parallel digital transcriptional profiling of single cells",
    Nature Communications 8, 14049 (2017).
    """
    try:
        import scanpy
    except ImportError as error:
        raise ImportError(
            "Expected the package scanpy, which holds these cells; it is not installed. "
            "Install it with: pip install scanpy"
        ) from error
    from anndata import AnnData

    shipped = scanpy.datasets.pbmc68k_reduced()
    scaled = sparse.csr_matrix(shipped.raw.X, dtype=np.float64)
    scale = np.repeat(
        shipped.obs["n_counts"].to_numpy(np.float64) / COUNTS_PER_CELL, np.diff(scaled.indptr)
    )
    exact = np.expm1(scaled.data) * scale
    counts = np.rint(exact)
    if np.abs(exact - counts).max() > 0.25 or counts.min() < 1:
        raise InvalidDataError(
            "Expected whole numbers behind scanpy.datasets.pbmc68k_reduced(); got others. "
            "This version of scanpy ships different data."
        )
    matrix = sparse.csr_matrix(
        (counts.astype(np.float32), scaled.indices, scaled.indptr), shape=scaled.shape
    )
    return AnnData(
        matrix,
        obs=shipped.obs[["bulk_labels", "louvain"]].copy(),
        var=shipped.raw.var[[]].copy(),
    )
