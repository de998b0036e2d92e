"""Data sets that are published as AnnData files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import FILES
from cellvae.data.downloads.folders import data_folder
from cellvae.data.files.h5ad import read_h5ad
from cellvae.errors import InvalidOptionError, did_you_mean, quote_names

if TYPE_CHECKING:
    from anndata import AnnData

NUISANCE_CLUSTERS = ("doublets", "NotAssigned")
PURIFIED = (
    "cd4_t_helper",
    "regulatory_t",
    "naive_t",
    "memory_t",
    "cytotoxic_t",
    "naive_cytotoxic",
    "b_cells",
    "cd34",
    "cd56_nk",
    "cd14_monocytes",
)
"""Cell types that were purified and sequenced one by one."""
DUPLICATED_BATCH = "7"
"""Batch of the purified cells that holds those of batch 0 (T helper cells) a second time."""


def load_h5ad(name: str, save_path: str | Path | None) -> AnnData:
    """Cells of a published file, without warnings that its format is an old one."""
    import anndata

    path = fetch(FILES[name], data_folder(save_path, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anndata.OldFormatWarning)
        return read_h5ad(path)


def heart_cell_atlas_subsampled(
    save_path: str | Path | None = None, remove_nuisance_clusters: bool = True
) -> AnnData:
    """Cells and nuclei of the human heart, 20,000 of the 486,134 of the Heart Cell Atlas.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.
    remove_nuisance_clusters
        Whether to leave out doublets and cells that have no type; 18,641 cells are left.

    Returns
    -------
    AnnData
        Counts of 26,662 genes; cell types in `obs["cell_type"]`, and `donor`, `cell_source`,
        `percent_mito`, `percent_ribo` among the other columns.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Litvinukova et al., "Cells of the adult human heart", Nature 588, 466-472 (2020).
    """
    adata = load_h5ad("hca_subsampled_20k.h5ad", save_path)
    if remove_nuisance_clusters:
        adata = adata[~adata.obs["cell_type"].isin(NUISANCE_CLUSTERS).to_numpy()].copy()
    return adata


def purified_pbmc_dataset(
    save_path: str | Path | None = None, subset_datasets: Sequence[str] | None = None
) -> AnnData:
    """Blood cells of ten types, each purified by beads and sequenced on its own.

    The published file has the T helper cells twice, as batches 0 and 7. As in scvi-tools 1.5,
    batch 7 is left out.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.
    subset_datasets
        Cell types to keep, in this order: `cd4_t_helper`, `regulatory_t`, `naive_t`, `memory_t`,
        `cytotoxic_t`, `naive_cytotoxic`, `b_cells`, `cd34`, `cd56_nk`, `cd14_monocytes`. All of
        them by default.

    Returns
    -------
    AnnData
        Counts; cell types in `obs["cell_types"]`, their numbers in `obs["labels"]`, and
        `obs["batch"]`.

    Raises
    ------
    InvalidOptionError
        If a cell type is unknown.
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Zheng et al., "Massively parallel digital transcriptional profiling of single cells", Nature
    Communications 8, 14049 (2017).
    """
    for cell_type in subset_datasets or ():
        if cell_type not in PURIFIED:
            raise InvalidOptionError(
                f"Expected subset_datasets to name cell types; got '{cell_type}'."
                f"{did_you_mean(str(cell_type), PURIFIED)} Known are "
                f"{quote_names(PURIFIED, len(PURIFIED))}."
            )
    adata = load_h5ad("PurifiedPBMCDataset.h5ad", save_path)
    indices = np.flatnonzero((adata.obs["batch"].astype(str) != DUPLICATED_BATCH).to_numpy())
    if subset_datasets is not None:
        types = adata.obs["cell_types"].to_numpy()[indices]
        parts = [indices[types == cell_type] for cell_type in subset_datasets]
        indices = np.concatenate(parts) if parts else indices[:0]
    return adata[indices].copy()


def retina(save_path: str | Path | None = None) -> AnnData:
    """Bipolar cells of the mouse retina in two batches, 15 clusters.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts; `obs["batch"]` and `obs["labels"]`.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Shekhar et al., "Comprehensive classification of retinal bipolar neurons by single-cell
    transcriptomics", Cell 166, 1308-1323 (2016).
    """
    return load_h5ad("retina.h5ad", save_path)


def prefrontalcortex_starmap(save_path: str | Path | None = None) -> AnnData:
    """Cells of the mouse's medial prefrontal cortex with their places, by STARmap.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts of 166 genes in 3,704 cells; `obs["batch"]`, `obs["labels"]`, and the places in
        `obs["x_coord"]` and `obs["y_coord"]`.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Wang et al., "Three-dimensional intact-tissue sequencing of single-cell transcriptional
    states", Science 361, eaat5691 (2018).
    """
    return load_h5ad("mpfc-starmap.h5ad", save_path)


def frontalcortex_dropseq(save_path: str | Path | None = None) -> AnnData:
    """Cells of the mouse's frontal cortex, by Drop-seq.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts of 71,639 cells; `obs["batch"]` and `obs["labels"]`.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Saunders et al., "Molecular diversity and specializations among the cells of the adult mouse
    brain", Cell 174, 1015-1030 (2018).
    """
    return load_h5ad("fc-dropseq.h5ad", save_path)


def annotation_simulation(name: str, save_path: str | Path | None = None) -> AnnData:
    """Simulated counts with known labels, for models that learn labels.

    Parameters
    ----------
    name
        `"1"`, `"2"` or `"3"`.
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts; `obs["batch"]` and `obs["labels"]`.

    Raises
    ------
    InvalidOptionError
        If there is no simulation of this name.
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Xu et al., "Probabilistic harmonization and annotation of single-cell transcriptomics data
    with deep generative models", Molecular Systems Biology 17, e9620 (2021).
    """
    if str(name) not in ("1", "2", "3"):
        raise InvalidOptionError(f"Expected name to be '1', '2' or '3'; got '{name}'.")
    return load_h5ad(f"simulation_{name}.h5ad", save_path)
