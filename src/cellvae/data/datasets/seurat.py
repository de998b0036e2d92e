"""Blood cells of a vaccine trial with RNA and 228 antibodies, as published with Seurat v4."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cellvae.core.options import check_value
from cellvae.data.datasets.h5ad_files import load_h5ad
from cellvae.errors import InvalidOptionError
from cellvae.settings import settings

if TYPE_CHECKING:
    from anndata import AnnData

PROTEIN_KEY = "protein_counts"
BATCH = "orig.ident"
N_BATCHES = 24
NOT_AGGREGATED = ("Notch", "TCR")
"""Prefixes of names whose number belongs to the protein, not to the antibody."""
MIN_LOG_PROTEIN_COUNTS, MAX_LOG_PROTEIN_COUNTS = 7.6, 10.3
MIN_PROTEINS = 150
MAX_PCT_MITOCHONDRIAL = 12
"""In percent of the counts of a cell."""


def pbmc_seurat_v4_cite_seq(
    save_path: str | Path | None = None,
    apply_filters: bool = True,
    aggregate_proteins: bool = True,
    mask_protein_batches: int = 0,
) -> AnnData:
    """Blood cells of eight volunteers at three times with RNA and surface proteins.

    161,764 cells in 24 batches. The counts of RNA are those of GEO (GSE164378), since the object
    that Seurat's pages offer has none.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.
    apply_filters
        Whether to leave out doublets and cells whose proteins or mitochondrial counts are far off:
        the logarithm of a cell's protein counts must lie between 7.6 and 10.3, more than 150
        proteins be detected, less than 12 % of the counts be mitochondrial.
    aggregate_proteins
        Whether to add up two antibodies against the same protein (`CD3-1` and `CD3-2` to `CD3`).
    mask_protein_batches
        Number of batches, at random by `settings.seed`, whose proteins are set to 0, like
        values that were not measured.

    Returns
    -------
    AnnData
        Counts; `obs["orig.ident"]` is the batch, `obs["celltype.l1"]` to `l3` are cell types;
        proteins by name in `obsm["protein_counts"]`.

    Raises
    ------
    InvalidOptionError
        If `mask_protein_batches` is negative, or more than there are.
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Hao et al., "Integrated analysis of multimodal single-cell data", Cell 184, 3573-3587 (2021).
    """
    bounds = {"at_least": 0, "at_most": N_BATCHES}
    check_value("mask_protein_batches", mask_protein_batches, int, bounds)
    adata = load_h5ad("pbmc_seurat_v4.h5ad", save_path)
    if aggregate_proteins:
        adata.obsm[PROTEIN_KEY] = sum_antibodies(adata.obsm[PROTEIN_KEY])
    if apply_filters:
        adata = adata[passes_filters(adata)].copy()
    if mask_protein_batches:
        mask_proteins(adata, mask_protein_batches)
    return adata


def sum_antibodies(counts: pd.DataFrame) -> pd.DataFrame:
    """Counts of proteins, with the sum of two numbered antibodies against the same protein."""
    summed = {}
    for name in counts.columns:
        protein, number = name.split("-")[0], name.split("-")[-1]
        pair = [f"{protein}-1", f"{protein}-2"]
        both = all(antibody in counts.columns for antibody in pair)
        if number in ("1", "2") and protein not in NOT_AGGREGATED and both:
            summed[protein] = counts[pair[0]] + counts[pair[1]]
        else:
            summed[name] = counts[name]
    return pd.DataFrame(summed, index=counts.index)


def passes_filters(adata: AnnData) -> np.ndarray:
    """Mask of the cells that pass, [cells]; the quality measures are written to `obs`."""
    mitochondrial = adata.var_names.str.startswith("MT-")
    total = np.ravel(adata.X.sum(axis=1))
    mitochondrial_counts = np.ravel(adata.X[:, np.flatnonzero(mitochondrial)].sum(axis=1))
    proteins = adata.obsm[PROTEIN_KEY]
    adata.var["mt"] = mitochondrial
    obs = adata.obs
    with np.errstate(divide="ignore", invalid="ignore"):
        obs["total_counts"] = total
        obs["total_counts_mt"] = mitochondrial_counts
        obs["pct_counts_mt"] = mitochondrial_counts / total * 100
        obs["Protein log library size"] = np.log(proteins.sum(axis=1))
        obs["Number proteins detected"] = (proteins > 0).sum(axis=1)
        obs["RNA log library size"] = np.log(total)
    passes = (
        (obs["Protein log library size"] > MIN_LOG_PROTEIN_COUNTS)
        & (obs["Protein log library size"] < MAX_LOG_PROTEIN_COUNTS)
        & (obs["Number proteins detected"] > MIN_PROTEINS)
        & (obs["celltype.l2"] != "Doublet")
        & (obs["pct_counts_mt"] < MAX_PCT_MITOCHONDRIAL)
    )
    return passes.to_numpy()


def mask_proteins(adata: AnnData, n_batches: int) -> None:
    """Set the proteins of some batches to 0.

    Raises
    ------
    InvalidOptionError
        If there are fewer batches.
    """
    batches = adata.obs[BATCH].astype("category").cat.categories.to_numpy(dtype=object)
    if n_batches > len(batches):
        raise InvalidOptionError(
            f"Expected mask_protein_batches of at most {len(batches)}, the number of batches that "
            f"are left; got {n_batches}."
        )
    # The generator of scvi-tools, so that the same seed masks the same batches.
    masked = np.random.RandomState(settings.seed).permutation(batches)[:n_batches]
    proteins = adata.obsm[PROTEIN_KEY].copy()
    proteins.loc[adata.obs[BATCH].isin(masked).to_numpy()] = 0
    adata.obsm[PROTEIN_KEY] = proteins
