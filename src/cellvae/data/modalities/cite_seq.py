"""CITE-seq data of Cell Ranger: proteins in `obsm` instead of among the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.data.anndata_adapter import subset_genes_inplace
from cellvae.data.setup.tables.cells import check_is_anndata
from cellvae.errors import InvalidDataError, UnknownKeyError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData

ANTIBODY = "Antibody Capture"


def organize_cite_seq_10x(adata: AnnData, copy: bool = False) -> AnnData | None:
    """Move proteins from the features of an AnnData to `obsm["protein_expression"]`.

    Parameters
    ----------
    adata
        Cells as `scanpy.read_10x_h5(path, gex_only=False)` gives them, with the types of features
        in `var["feature_types"]`.
    copy
        Whether to return a copy instead of changing `adata`.

    Returns
    -------
    AnnData or None
        The cells with genes as features and a table of proteins, if `copy`. Otherwise `adata` is
        changed.

    Raises
    ------
    UnknownKeyError
        If there is no `var["feature_types"]`.
    InvalidDataError
        If no feature is a protein, or the cells are on disk.
    """
    check_is_anndata(adata)
    if "feature_types" not in adata.var:
        raise UnknownKeyError(
            "Expected the type of each feature in adata.var['feature_types']; the columns are "
            f"{quote_names([*adata.var.columns]) or 'none'}."
        )
    if adata.isbacked:
        raise InvalidDataError(
            "Expected cells in memory; got an AnnData in backed mode. Load it: adata.to_memory()."
        )
    feature_types = adata.var["feature_types"]
    proteins = (feature_types == ANTIBODY).to_numpy()
    if not proteins.any():
        raise InvalidDataError(
            f"Expected features of the type '{ANTIBODY}'; got "
            f"{quote_names([*feature_types.unique()])}. "
            "Read all types: scanpy.read_10x_h5(path, gex_only=False)."
        )
    if copy:
        adata = adata.copy()
    counts = adata.X[:, np.flatnonzero(proteins)]
    table = pd.DataFrame(
        counts.toarray() if sparse.issparse(counts) else np.array(counts),
        index=adata.obs_names,
        columns=adata.var_names[proteins],
    )
    subset_genes_inplace(adata, ~proteins)
    adata.obsm["protein_expression"] = table
    return adata if copy else None
