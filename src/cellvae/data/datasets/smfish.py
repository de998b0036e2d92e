"""Cells of the mouse's somatosensory cortex with their places, by osmFISH."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd

from cellvae.data.datasets.h5ad_files import load_h5ad

if TYPE_CHECKING:
    from anndata import AnnData

CELL_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Astrocytes": ("Astrocyte Gfap", "Astrocyte Mfge8"),
        "Endothelials": ("Endothelial", "Endothelial 1"),
        "Inhibitory": (
            "Inhibitory CP",
            "Inhibitory Cnr1",
            "Inhibitory Crhbp",
            "Inhibitory IC",
            "Inhibitory Kcnip2",
            "Inhibitory Pthlh",
            "Inhibitory Vip",
        ),
        "Microglias": ("Microglia", "Perivascular Macrophages"),
        "Oligodendrocytes": (
            "Oligodendrocyte COP",
            "Oligodendrocyte MF",
            "Oligodendrocyte Mature",
            "Oligodendrocyte NF",
            "Oligodendrocyte Precursor cells",
        ),
        "Pyramidals": (
            "Hippocampus",
            "Pyramidal Cpne5",
            "Pyramidal Kcnip2",
            "Pyramidal L2-3",
            "Pyramidal L2-3 L5",
            "Pyramidal L3-4",
            "Pyramidal L5",
            "Pyramidal L6",
            "pyramidal L4",
        ),
    }
)
"""Published clusters by cell type; other clusters are left out."""


def smfish(save_path: str | Path | None = None, use_high_level_cluster: bool = True) -> AnnData:
    """Cells of the mouse's somatosensory cortex with their places, 33 genes by osmFISH.

    Parameters
    ----------
    save_path
        Folder of the file; by default the cache of the user, see :doc:`/datasets`.
    use_high_level_cluster
        Whether to merge the clusters into six cell types, and to leave out other cells.

    Returns
    -------
    AnnData
        Counts under the names of their genes, which scvi-tools loses; `obs["str_labels"]` with
        clusters or cell types, their numbers in `obs["labels"]`, `obs["batch"]`, and the places
        in `obs["x_coord"]` and `obs["y_coord"]`. Names of the labels in `uns["cell_types"]`.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, or is damaged.

    References
    ----------
    Codeluppi et al., "Spatial organization of the somatosensory cortex revealed by osmFISH",
    Nature Methods 15, 932-935 (2018).
    """
    from anndata import AnnData

    adata = load_h5ad("smfish.h5ad", save_path)
    if use_high_level_cluster:
        types = {cluster: name for name, clusters in CELL_TYPES.items() for cluster in clusters}
        labels = adata.obs["str_labels"].astype(object)
        labels = labels.map(lambda cluster: types.get(cluster, cluster))
        has_type = labels.isin([*CELL_TYPES]).to_numpy()
        obs = adata.obs[has_type].copy()
        obs["str_labels"] = pd.Categorical(labels[has_type])
        obs["labels"] = obs["str_labels"].cat.codes
        adata = AnnData(adata.X[has_type], obs=obs, var=adata.var.copy())
    labels = adata.obs["str_labels"].astype("category")
    adata.uns = {"cell_types": labels.cat.categories.to_numpy(dtype=object)}
    return adata
