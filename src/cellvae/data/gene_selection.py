"""Selection of genes that are zero in more cells than under a Poisson model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.data.anndata_adapter import subset_genes_inplace
from cellvae.data.setup.checks import check_counts
from cellvae.data.setup.obs_columns import to_categorical
from cellvae.data.setup.tables.cells import check_is_anndata
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.errors import InvalidDataError, InvalidOptionError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

COLUMNS = (
    "observed_fraction_zeros",
    "expected_fraction_zeros",
    "prob_zero_enriched_nbatches",
    "prob_zero_enrichment",
    "prob_zero_enrichment_rank",
    "highly_variable",
)


def poisson_gene_selection(
    adata: AnnData,
    layer: str | None = None,
    n_top_genes: int = 4000,
    accelerator: object = None,
    device: object = None,
    subset: bool = False,
    inplace: bool = True,
    n_samples: object = None,
    batch_key: str | None = None,
    silent: object = None,
    minibatch_size: int = 5000,
) -> pd.DataFrame | None:
    """Select the genes that are zero more often than expected of Poisson counts.

    A gene with a fraction s of all counts is zero in a cell of library size n with probability
    exp(-s n). If a fraction p of the cells has a zero, and q is the expected fraction, the gene is
    ranked by p (1 - q), the probability that a random cell has a zero and a cell of the model
    has none. scvi-tools samples cells to estimate it; here it is exact.

    Parameters
    ----------
    adata
        Cells with raw counts.
    layer
        Layer with the counts; None for `X`.
    n_top_genes
        Number of genes to select.
    subset
        Whether the other genes are dropped from `adata`.
    inplace
        Whether the columns are written into `adata.var`; otherwise they are returned.
    batch_key
        Column of `adata.obs`; genes are then ranked in each batch, and those that are among the
        top genes of most batches are selected.
    minibatch_size
        Distinct library sizes that are processed at a time.
    accelerator, device, n_samples, silent
        Arguments of scvi-tools without effect: nothing is sampled here, and it takes seconds.

    Returns
    -------
    Table with a row for each gene, unless `inplace`: fractions of zeros observed and expected,
    the number of batches in which the gene is among the top genes, its probability and rank
    (medians over batches), and whether it is selected.

    Raises
    ------
    UnknownKeyError
        If there is no such layer or column.
    InvalidDataError
        If counts are not integers of 0 or more, the AnnData is in backed mode, or a batch is empty.
    InvalidOptionError
        If an option has an invalid value.

    References
    ----------
    Andrews, Hemberg (2019): M3Drop: dropout-based feature selection for scRNASeq. Bioinformatics
    35, 2865.
    """
    check_is_anndata(adata)
    if n_top_genes < 1 or minibatch_size < 1:
        raise InvalidOptionError(
            "Expected n_top_genes and minibatch_size to be at least 1; got "
            f"{n_top_genes} and {minibatch_size}."
        )
    matrix = count_matrix(adata, layer)
    if matrix.on_disk:
        raise InvalidDataError(
            "Expected cells in memory; got an AnnData in backed mode. Load it: adata.to_memory()."
        )
    if not check_counts(matrix, adata).integers:
        raise InvalidDataError(
            f"Expected raw counts (whole numbers) in {matrix.where}; got others. {matrix.advice}"
        )
    counts = matrix.values.tocsr() if sparse.issparse(matrix.values) else matrix.values
    parts = [np.arange(adata.n_obs)]
    if batch_key is not None:
        codes = to_categorical(adata, batch_key).cat.codes.to_numpy()
        parts = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    zeros = [zero_fractions(counts[cells], minibatch_size) for cells in parts]
    observed = np.stack([part[0] for part in zeros])
    expected = np.stack([part[1] for part in zeros])
    enriched = observed * (1 - expected)
    ranks = enriched.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    values = (
        np.median(observed, axis=0),
        np.median(expected, axis=0),
        (ranks >= adata.n_vars - n_top_genes).sum(axis=0),
        np.median(enriched, axis=0),
        np.median(ranks, axis=0),
    )
    table = pd.DataFrame(dict(zip(COLUMNS, values, strict=False)), index=adata.var_names.copy())
    order = np.lexsort((-values[4], -values[2]))
    selected = np.zeros(adata.n_vars, dtype=bool)
    selected[order[:n_top_genes]] = True
    table["highly_variable"] = selected
    if not (inplace or subset):
        return table
    for column in COLUMNS:
        adata.var[column] = table[column]
    if subset:
        subset_genes_inplace(adata, selected)
    return None


def zero_fractions(
    counts: NDArray[np.float32] | sparse.csr_matrix, minibatch_size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions of cells in which each gene is zero, observed and expected of Poisson counts.

    Raises
    ------
    InvalidDataError
        If there are no counts.
    """
    n_cells = counts.shape[0]
    per_gene = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    per_cell = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    if not per_gene.sum():
        raise InvalidDataError("Expected counts above 0 in every batch; got a batch without any.")
    observed = 1 - np.asarray((counts > 0).sum(axis=0), dtype=np.float64).ravel() / n_cells
    fractions = per_gene / per_gene.sum()
    # Cells of the same library size have the same probabilities.
    library_sizes, n_cells_of_size = np.unique(per_cell, return_counts=True)
    expected = np.zeros(len(fractions))
    for start in range(0, len(library_sizes), minibatch_size):
        chunk = slice(start, start + minibatch_size)
        expected += n_cells_of_size[chunk] @ np.exp(-np.outer(library_sizes[chunk], fractions))
    return observed, expected / n_cells
