"""CITE-seq data sets of two experiments, concatenated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from cellvae.data.datasets.h5ad_files import load_h5ad
from cellvae.errors import InvalidOptionError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

Join = Literal["inner", "outer"]
PROTEINS = "protein_expression"
LOW_QUALITY_CLUSTERS = ("16,0", "17", "19", "21", "23", "24,0", "24,2", "25", "29")
"""Clusters of spleen and lymph nodes that are doublets or of low quality."""


def pbmcs_10x_cite_seq(
    save_path: str | Path | None = None, protein_join: Join = "inner"
) -> AnnData:
    """Blood cells with RNA and surface proteins, two experiments of 10x Genomics.

    Doublets and outliers were removed by the authors of totalVI.

    Parameters
    ----------
    save_path
        Folder of the files; by default the cache of the user, see :doc:`/datasets`.
    protein_join
        `"inner"` for the proteins that both experiments measured, `"outer"` for those of either;
        values that were not measured are 0.

    Returns
    -------
    AnnData
        Counts of the genes of both; `obs["batch"]` is `PBMC10k` or `PBMC5k`; proteins by name in
        `obsm["protein_expression"]`. Names of cells are unique, which they are not in scvi-tools.

    Raises
    ------
    InvalidOptionError
        If `protein_join` is neither.
    DownloadError
        If a file cannot be downloaded, or is damaged.

    References
    ----------
    Gayoso, Steier et al., "Joint probabilistic modeling of single-cell multi-omic data with
    totalVI", Nature Methods 18, 272-282 (2021).
    """
    check_join(protein_join)
    parts = []
    for name, batch in (("pbmc_10k_protein_v3", "PBMC10k"), ("pbmc_5k_protein_v3", "PBMC5k")):
        part = load_h5ad(f"{name}.h5ad", save_path)
        part.obs["batch"] = batch
        part.obsm[PROTEINS] = pd.DataFrame(
            part.obsm[PROTEINS], columns=part.uns.pop("protein_names"), index=part.obs_names
        )
        parts.append(part)
    return concatenate_proteins(parts, protein_join)


def spleen_lymph_cite_seq(
    save_path: str | Path | None = None,
    protein_join: Join = "inner",
    remove_outliers: bool = True,
) -> AnnData:
    """Immune cells of the mouse's spleen and lymph nodes with RNA and surface proteins.

    The data set of the totalVI paper that it names SLN-all, with 111 and 208 antibodies.

    Parameters
    ----------
    save_path
        Folder of the files; by default the cache of the user, see :doc:`/datasets`.
    protein_join
        `"inner"` for the proteins that both panels have, `"outer"` for those of either;
        values that were not measured are 0.
    remove_outliers
        Whether to leave out clusters that are doublets or of low quality.

    Returns
    -------
    AnnData
        Counts of the genes of both; `obs["batch"]`, `obs["cell_types"]`, `obs["tissue"]`; proteins
        by name in `obsm["protein_expression"]`, isotype controls and hashtags in
        `obsm["isotypes_htos"]`.

    Raises
    ------
    InvalidOptionError
        If `protein_join` is neither.
    DownloadError
        If a file cannot be downloaded, or is damaged.

    References
    ----------
    Gayoso, Steier et al., "Joint probabilistic modeling of single-cell multi-omic data with
    totalVI", Nature Methods 18, 272-282 (2021).
    """
    check_join(protein_join)
    parts = [load_h5ad(name, save_path) for name in ("sln_111.h5ad", "sln_208.h5ad")]
    parts[0].obsm["isotypes_htos"] = parts[0].obsm.pop("htos")
    adata = concatenate_proteins(parts, protein_join)
    if remove_outliers:
        adata = adata[~adata.obs["leiden_subclusters"].isin(LOW_QUALITY_CLUSTERS).to_numpy()].copy()
    return adata


def check_join(protein_join: str) -> None:
    """Raise if the join is neither `inner` nor `outer`."""
    if protein_join not in ("inner", "outer"):
        raise InvalidOptionError(
            f"Expected protein_join to be 'inner' or 'outer'; got '{protein_join}'."
            f"{did_you_mean(str(protein_join), ('inner', 'outer'))}"
        )


def concatenate_proteins(parts: list[AnnData], join: Join) -> AnnData:
    """Cells of all experiments with the common genes, and 0 for proteins that were not measured."""
    import anndata
    from anndata.utils import make_index_unique

    genes = parts[0].var_names
    for part in parts[1:]:
        genes = genes.intersection(part.var_names)
    names = make_index_unique(pd.Index([name for part in parts for name in part.obs_names]))
    first = 0
    subsets = []
    for part in parts:
        subset = part[:, genes].copy()
        subset.obs_names = names[first : first + part.n_obs]
        first += part.n_obs
        subsets.append(subset)
    adata = anndata.concat(subsets, join=join)
    adata.obsm[PROTEINS] = adata.obsm[PROTEINS].fillna(0)
    return adata
