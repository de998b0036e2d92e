"""The 1.3 million brain cells of 10x Genomics, read in parts with the most variable genes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from cellvae.core.log import logger
from cellvae.core.options import check_value
from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import FILES
from cellvae.data.downloads.folders import data_folder
from cellvae.errors import InvalidDataError

if TYPE_CHECKING:
    from anndata import AnnData


def brainlarge_dataset(
    save_path: str | Path | None = None,
    sample_size_gene_var: int = 10_000,
    max_cells_to_keep: int | None = None,
    n_genes_to_keep: int = 720,
    loading_batch_size: int = 100_000,
) -> AnnData:
    """1.3 million cells of the embryonic mouse brain, with the most variable genes.

    The file (4 GB) is read in parts, so that only the selected genes are in memory.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.
    sample_size_gene_var
        Number of cells, the first ones, that the variances of the genes are computed from.
    max_cells_to_keep
        Number of cells to read, the first ones; all by default. scvi-tools reads up to
        `loading_batch_size` cells regardless of this argument.
    n_genes_to_keep
        Number of genes, in the order of decreasing variance.
    loading_batch_size
        Number of cells that are read at a time.

    Returns
    -------
    AnnData
        Counts, CSR in single precision, of cells with more than one count and more than one gene;
        `obs["batch"]` and `obs["labels"]` are 0.

    Raises
    ------
    InvalidOptionError
        If a number is below 1.
    DownloadError
        If the file cannot be downloaded, or is damaged.
    InvalidDataError
        If it is not such a file.

    References
    ----------
    10x Genomics, "1.3 million brain cells from E18 mice", Chromium single cell 3' v2 (2017).
    """
    for name, value in (
        ("sample_size_gene_var", sample_size_gene_var),
        ("n_genes_to_keep", n_genes_to_keep),
        ("loading_batch_size", loading_batch_size),
    ):
        check_value(name, value, int, {"at_least": 1})
    check_value("max_cells_to_keep", max_cells_to_keep, int | None, {"at_least": 1})
    name = "brain_large.h5"
    return read_brain_large(
        fetch(FILES[name], data_folder(save_path, name)),
        sample_size_gene_var,
        max_cells_to_keep,
        n_genes_to_keep,
        loading_batch_size,
    )


def read_brain_large(
    path: Path, n_sampled: int, max_cells: int | None, n_genes: int, n_at_once: int
) -> AnnData:
    """Cells of a file that holds a matrix [genes, cells] by columns, with few genes.

    Raises
    ------
    InvalidDataError
        If the file does not have exactly one such matrix.
    """
    import h5py
    from anndata import AnnData

    with h5py.File(path, "r") as file:
        groups = [group for group in file.values() if isinstance(group, h5py.Group)]
        if len(groups) != 1 or not {"data", "indices", "indptr", "shape"} <= set(groups[0]):
            raise InvalidDataError(f"Expected one matrix of 10x Genomics in '{path}'; got others.")
        group = groups[0]
        n_cells = int(group["shape"][1])
        indptr = group["indptr"][...].astype(np.int64)
        sample = read_cells(group, indptr, 0, min(n_sampled, n_cells))
        genes = select_variable_genes(sample, n_genes)
        last = n_cells if max_cells is None else min(max_cells, n_cells)
        parts = []
        for first in range(0, last, n_at_once):
            end = min(first + n_at_once, last)
            parts.append(read_cells(group, indptr, first, end)[:, genes])
            logger.info("Read %s of %s cells", f"{end:,}", f"{last:,}")
    counts = sparse.vstack(parts, format="csr")
    nonempty = (np.ravel(counts.sum(axis=1)) > 1) & (np.diff(counts.indptr) > 1)
    adata = AnnData(counts[nonempty])
    for column in ("labels", "batch"):
        adata.obs[column] = np.zeros(adata.n_obs)
    return adata


def read_cells(group: Any, indptr: np.ndarray, first: int, end: int) -> sparse.csr_matrix:
    """Cells of a group, [cells, genes]."""
    values = slice(int(indptr[first]), int(indptr[end]))
    cells = sparse.csr_matrix(
        (
            group["data"][values].astype(np.float32),
            group["indices"][values].astype(np.int32),
            indptr[first : end + 1] - indptr[first],
        ),
        shape=(end - first, int(group["shape"][0])),
    )
    cells.eliminate_zeros()
    return cells


def select_variable_genes(counts: sparse.csr_matrix, n_genes: int) -> np.ndarray:
    """Indices of the most variable genes, in the order of decreasing variance."""
    exact = counts.astype(np.float64)
    mean = np.ravel(exact.mean(axis=0))
    variance = np.ravel(exact.multiply(exact).mean(axis=0)) - mean**2
    return np.argsort(variance)[::-1][:n_genes]
