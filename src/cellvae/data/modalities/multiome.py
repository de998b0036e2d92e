"""Concatenation of multiome cells with cells that have only genes or only regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cellvae.data.setup.tables.cells import check_is_anndata
from cellvae.data.setup.tables.feature_types import COLUMN, GENES, REGIONS
from cellvae.errors import InvalidDataError, UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

TYPE_COLUMNS = (COLUMN, "modality")
"""Columns of `var` that may have the types of features; notebooks name the second."""
NOUNS = {"expression": ("rna", "genes", GENES), "accessibility": ("atac", "regions", REGIONS)}
"""Argument, features and type of the features of cells of one modality."""


def organize_multimodal(
    multi: AnnData,
    rna: AnnData | None = None,
    atac: AnnData | None = None,
    modality_key: str = "modality",
    *,
    fill_missing: bool = False,
) -> AnnData:
    """Cells with genes and regions, cells with genes, and cells with regions, as one AnnData.

    The result can be given to `MULTIVI.setup_anndata`: genes are the first features, and their
    types are in `var["feature_types"]`.

    Parameters
    ----------
    multi
        Cells with genes and regions, whose types (`"Gene Expression"` and `"Peaks"`) are in
        `var["feature_types"]` or `var["modality"]`. The features of the result are those of it.
    rna
        Cells with genes, under the same names.
    atac
        Cells with regions, under the same names.
    modality_key
        Column of `obs` that says where a cell comes from: `paired`, `expression` or
        `accessibility`.
    fill_missing
        Whether counts of features that `rna` or `atac` lack are zeros; otherwise it has to have all
        features of its type, since zeros look like measured counts.

    Returns
    -------
    AnnData
        All cells, named `<cell>_<modality>` and made unique, with 0 for the modality that was not
        measured; sparse where `multi` is. Features that `multi` does not have are left out.

    Raises
    ------
    UnknownKeyError
        If `multi` has no types of features.
    InvalidDataError
        If a feature is neither gene nor region, names of features occur twice, features are missing
        in `rna` or `atac`, or one of them has features of the other type.

    Examples
    --------
    >>> import cellvae
    >>> multi = cellvae.data.synthetic_iid()
    >>> multi.var["feature_types"] = ["Peaks"] * 40 + ["Gene Expression"] * 60
    >>> rna = multi[:50, 40:].copy()
    >>> adata = cellvae.data.organize_multimodal(multi, rna=rna)
    >>> adata.obs["modality"].value_counts().to_dict()
    {'paired': 400, 'expression': 50}
    >>> adata.var["feature_types"].iloc[0]
    'Gene Expression'
    """
    check_is_anndata(multi)
    types = types_of_features(multi)
    for modality, part in (("expression", rna), ("accessibility", atac)):
        if part is not None:
            check_features(part, types, modality, fill_missing=fill_missing)
    combined = organize_multiome_anndatas(multi, rna, atac, modality_key)
    combined.var[COLUMN] = types.to_numpy()
    order = np.argsort((types != GENES).to_numpy(), kind="stable")
    if (np.diff(order) < 0).any():
        combined = combined[:, order].copy()
    return combined


def types_of_features(adata: AnnData) -> pd.Series:
    """Type of each feature of an AnnData, by its name.

    Raises
    ------
    UnknownKeyError
        If there is no column with them.
    InvalidDataError
        If a feature is neither gene nor region.
    """
    found = [name for name in TYPE_COLUMNS if name in adata.var]
    if not found:
        raise UnknownKeyError(
            f"Expected the type of each feature ('{GENES}' or '{REGIONS}') in "
            f"multi.var['{COLUMN}'] or multi.var['modality']; the columns are "
            f"{quote_names([*adata.var.columns]) or 'none'}."
        )
    types = adata.var[found[0]].astype(str).astype(object)
    others = [name for name in types.unique() if name not in (GENES, REGIONS)]
    if others:
        raise InvalidDataError(
            f"Expected features of the types '{GENES}' and '{REGIONS}' in "
            f"multi.var['{found[0]}']; got {quote_names(others)}."
            f"{did_you_mean(others[0], (GENES, REGIONS))} Rename the types, or leave these "
            "features out."
        )
    return types


def check_features(part: AnnData, types: pd.Series, modality: str, *, fill_missing: bool) -> None:
    """Check that cells of one modality have its features, and none of the other.

    Parameters
    ----------
    part
        Cells of one modality.
    types
        Type of each feature of the multiome cells, by its name.
    modality
        `"expression"` or `"accessibility"`.
    fill_missing
        Whether features may be missing.

    Raises
    ------
    InvalidDataError
        If features are missing, or of the other type; the message names them.
    """
    check_is_anndata(part)
    argument, noun, feature_type = NOUNS[modality]
    own, others = (types.index[types == t] for t in (feature_type, other_type(feature_type)))
    overlapping = part.var_names[part.var_names.isin(others)]
    if len(overlapping):
        raise InvalidDataError(
            f"Expected only {noun} in {argument}; got {len(overlapping):,} features that are "
            f"'{other_type(feature_type)}' in multi: {quote_names([*overlapping])}. Leave them "
            "out, or give cells with both in multi."
        )
    missing = own[~own.isin(part.var_names)]
    if len(missing) and (len(missing) == len(own) or not fill_missing):
        hint = did_you_mean(str(missing[0]), [*map(str, part.var_names)])
        raise InvalidDataError(
            f"Expected the {len(own):,} {noun} of multi in {argument}; got "
            f"{len(own) - len(missing):,}: missing {quote_names([*missing])}.{hint} Select the "
            f"{noun} that both have in multi, or give fill_missing=True for counts of zero."
        )


def other_type(feature_type: str) -> str:
    """The other one of the types of genes and regions."""
    return REGIONS if feature_type == GENES else GENES


def organize_multiome_anndatas(
    multi_anndata: AnnData,
    rna_anndata: AnnData | None = None,
    atac_anndata: AnnData | None = None,
    modality_key: str = "modality",
) -> AnnData:
    """Concatenate cells with genes and regions, cells with genes and cells with regions.

    As in scvi-tools: types of features are not needed, and features that cells lack are zeros.
    :func:`organize_multimodal` checks more.

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
        All cells, named `<cell>_<modality>` and made unique, with 0 for features that were not
        measured. Features that `multi_anndata` does not have are left out.

    Raises
    ------
    InvalidDataError
        If two share no feature, or names of features occur twice.
    """
    import anndata

    check_is_anndata(multi_anndata)
    features = multi_anndata.var_names
    anndatas = {"paired": multi_anndata, "expression": rna_anndata, "accessibility": atac_anndata}
    parts = {
        modality: part[:, shared_features(part, features, modality)]
        for modality, part in anndatas.items()
        if part is not None
    }
    parts = {name: part.to_memory() if part.isbacked else part for name, part in parts.items()}
    combined = anndata.concat(
        parts, join="outer", label=modality_key, index_unique="_", fill_value=0
    )
    combined = combined[:, features].copy()
    if not combined.obs_names.is_unique:
        combined.obs_names_make_unique("-")
    combined.obs[modality_key] = combined.obs[modality_key].astype(str).astype(object)
    combined.var = multi_anndata.var.copy()
    return combined


def shared_features(part: AnnData, features: pd.Index, modality: str) -> NDArray[np.int64]:
    """Indices of the features of cells that the multiome cells have too.

    Raises
    ------
    InvalidDataError
        If there are none, or names of features occur twice.
    """
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
    return shared
