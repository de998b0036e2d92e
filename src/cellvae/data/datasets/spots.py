"""Spots of tissue, from tables of text: each spot holds several cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellvae.data.downloads.fetch import fetch
from cellvae.data.downloads.files import FILES
from cellvae.data.downloads.folders import data_folder

if TYPE_CHECKING:
    from anndata import AnnData


def breast_cancer_dataset(save_path: str | Path | None = None) -> AnnData:
    """Spots of a section of breast cancer (layer 2), by spatial transcriptomics.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts, dense, named by the place of the spot (`"17x9"`); `obs["batch"]` and
        `obs["labels"]` are 0.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Stahl et al., "Visualization and analysis of gene expression in tissue sections by spatial
    transcriptomics", Science 353, 78-82 (2016).
    """
    return load_spots("Layer2_BC_count_matrix-1.tsv", save_path)


def mouse_ob_dataset(save_path: str | Path | None = None) -> AnnData:
    """Spots of a section of the mouse's olfactory bulb (replicate 11), by spatial transcriptomics.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.

    Returns
    -------
    AnnData
        Counts, dense, named by the place of the spot (`"17x9"`); `obs["batch"]` and
        `obs["labels"]` are 0.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Stahl et al., "Visualization and analysis of gene expression in tissue sections by spatial
    transcriptomics", Science 353, 78-82 (2016).
    """
    return load_spots("Rep11_MOB_count_matrix-1.tsv", save_path)


def load_spots(name: str, save_path: str | Path | None) -> AnnData:
    """Spots of a table with a line for each spot and a column for each gene."""
    from anndata.io import read_csv

    path = fetch(FILES[name], data_folder(save_path, name))
    adata = read_csv(path, delimiter="\t")
    for column in ("batch", "labels"):
        adata.obs[column] = np.zeros(adata.n_obs, dtype=np.int64)
    return adata
