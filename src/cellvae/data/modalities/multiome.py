"""Concatenation of multiome cells with cells that have only genes or only regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cellvae.data.setup.tables.cells import check_is_anndata
from cellvae.errors import InvalidDataError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


def organize_multiome_anndatas(
    multi_anndata: AnnData,
    rna_anndata: AnnData | None = None,
    atac_anndata: AnnData | None = None,
    modality_key: str = "modality",
) -> AnnData:
    """Concatenate cells with genes and regions, cells with genes and cells with regions.

    Parameters
    ----------
    multi_anndata
        Cells with genes and regions. Their features, in their order, are those of the result.
    rna_anndata
        Cells with genes, under the same names.
    atac_anndata
        Cells with regions, under the same names.
    modality_key
        Column of `obs` that says where a cell comes from: `paired`, `expression` or
        `accessibility`.

    Returns
    -------
    AnnData
        All cells, named `<cell>_<modality>`, with 0 for features that were not measured. Features
        that `multi_anndata` does not have are left out.

    Raises
    ------
    InvalidDataError
        If two share no feature, or names of features occur twice.
    """
    import anndata

    anndatas = {"paired": multi_anndata, "expression": rna_anndata, "accessibility": atac_anndata}
    parts = {}
    check_is_anndata(multi_anndata)
    features = multi_anndata.var_names
    for modality, part in anndatas.items():
        if part is None:
            continue
        check_is_anndata(part)
        if not part.var_names.is_unique:
            repeated = part.var_names[part.var_names.duplicated()].unique()
            raise InvalidDataError(
                f"Expected features of different names in the {modality} cells; "
                f"{quote_names(list(repeated))} occur twice. Make them unique: "
                "adata.var_names_make_unique()."
            )
        shared = np.flatnonzero(part.var_names.isin(features))
        if not len(shared):
            raise InvalidDataError(
                f"Expected features of the {modality} cells to be among those of multi_anndata; "
                f"got {quote_names(list(part.var_names), 3)} where it has "
                f"{quote_names(list(features), 3)}."
            )
        parts[modality] = part[:, shared]
    combined = anndata.concat(
        parts, join="outer", label=modality_key, index_unique="_", fill_value=0
    )
    combined = combined[:, features].copy()
    combined.obs[modality_key] = combined.obs[modality_key].astype(str).astype(object)
    combined.var = multi_anndata.var.copy()
    return combined
