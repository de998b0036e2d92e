"""Types of the features of an AnnData: genes and regions of chromatin in one matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellvae.data.setup.tables.cells import check_is_table
from cellvae.errors import InvalidDataError, UnknownKeyError, quote_names

if TYPE_CHECKING:
    from anndata import AnnData

COLUMN = "feature_types"
"""Column of `var` with the type of each feature, as Cell Ranger names it."""
GENES = "Gene Expression"
REGIONS = "Peaks"


def find_feature_types(adata: AnnData) -> tuple[str, ...]:
    """Which of the types of genes and of regions an AnnData has.

    Raises
    ------
    UnknownKeyError
        If there is no `var["feature_types"]`.
    InvalidDataError
        If `adata` is neither an AnnData nor cells in files, or no feature is a gene or a region.
    """
    check_is_table(adata)
    types = feature_types(adata)
    found = tuple(name for name in (GENES, REGIONS) if name in types)
    if not found:
        raise InvalidDataError(
            f"Expected features of the type '{GENES}' or '{REGIONS}' in adata.var['{COLUMN}']; got "
            f"{quote_names(types)}. Rename the types."
        )
    return found


def features_of_type(adata: AnnData, feature_type: str) -> AnnData:
    """View of the features of a type.

    Raises
    ------
    UnknownKeyError
        If there is no `var["feature_types"]`.
    InvalidDataError
        If no feature has this type.
    """
    if feature_type not in feature_types(adata):
        raise InvalidDataError(
            f"Expected features of the type '{feature_type}' in adata.var['{COLUMN}']; got "
            f"{quote_names(feature_types(adata))}."
        )
    return adata[:, (adata.var[COLUMN] == feature_type).to_numpy()]


def feature_types(adata: AnnData) -> list[str]:
    """Types of the features of an AnnData, each once.

    Raises
    ------
    UnknownKeyError
        If there is no `var["feature_types"]`.
    """
    if COLUMN not in adata.var:
        raise UnknownKeyError(
            f"Expected the type of each feature ('{GENES}' or '{REGIONS}') in "
            f"adata.var['{COLUMN}']; the columns are {quote_names([*adata.var.columns])}. Set it, "
            "or give the modalities of a MuData to setup_mudata."
        )
    return [*map(str, adata.var[COLUMN].dropna().unique())]
