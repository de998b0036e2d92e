"""Keys and fields of the models of genes, regions of chromatin and surface proteins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cellvae.data.setup.fields import (
    Categories,
    Category,
    Counts,
    Field,
    Numbers,
    Proteins,
    Regions,
)
from cellvae.data.setup.keys import ACCEPTS_ONE
from cellvae.data.setup.mudata_keys import MuDataKeys
from cellvae.data.setup.tables.feature_types import GENES, REGIONS

COLUMNS = (
    "batch_key",
    "size_factor_key",
    "categorical_covariate_keys",
    "continuous_covariate_keys",
)


@dataclass(frozen=True, kw_only=True)
class MultimodalKeys(MuDataKeys):
    """Names of the counts of genes, regions and proteins, the batch and the covariates.

    The modalities of a MuData that are read are those with an entry in `modalities`. In an AnnData,
    genes and regions are the features of the types in `feature_types`.

    Parameters
    ----------
    layer
        Layer that holds the counts; None for `X`.
    atac_layer
        Layer that holds the counts of regions; None for `X`.
    protein_layer
        Layer that holds the counts of proteins; None for `X`.
    batch_key
        Column of `adata.obs` with the batch of each cell.
    size_factor_key
        Columns of `adata.obs` with the library size of the genes of each cell and, if there are
        two, the probability that an accessible region of it is detected.
    categorical_covariate_keys, continuous_covariate_keys
        Columns of `adata.obs` with categories and numbers to correct for.
    protein_expression_obsm_key
        Entry of `adata.obsm` with the counts of proteins; None for no proteins.
    protein_names_uns_key
        Entry of `adata.uns` with the names of the proteins; by default the columns of the
        DataFrame, or numbers.
    feature_types
        Types of the features of an AnnData that are read, found in the data; empty for a MuData.
    modalities
        Modality of each of these arguments, by its name. The tables that are read are those of
        `rna_layer`, `atac_layer` and `protein_layer` that have one; columns without one are those
        of `mdata.obs`.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

    cells_text: ClassVar[str] = (
        "Cells, with counts of genes and regions in one matrix, in any order. Their types, "
        '`"Gene Expression"` and `"Peaks"`, are in `var["feature_types"]`; other features are left '
        "out."
    )
    mudata_text: ClassVar[str] = "Cells that have some or all of the modalities."
    anndata_keys: ClassVar[tuple[str, ...]] = (
        "layer",
        *COLUMNS,
        "protein_expression_obsm_key",
        "protein_names_uns_key",
    )
    mudata_keys: ClassVar[tuple[str, ...]] = ("layer", "atac_layer", "protein_layer", *COLUMNS)
    table_arguments: ClassVar[tuple[str, ...]] = ("rna_layer", "atac_layer", "protein_layer")
    all_tables_required: ClassVar[bool] = False

    layer: str | None = None
    atac_layer: str | None = None
    protein_layer: str | None = None
    protein_expression_obsm_key: str | None = None
    protein_names_uns_key: str | None = None
    feature_types: tuple[str, ...] = ()
    batch_key: str | None = None
    size_factor_key: tuple[str, ...] = field(default=(), metadata={ACCEPTS_ONE: True})
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()


def multimodal_fields(keys: MultimodalKeys) -> tuple[Field, ...]:
    """Fields of a model of several modalities, in a fixed order.

    A modality may lack cells of the MuData; their counts are read as zeros.
    """
    of_batch, of_sizes = keys.modality("batch_key"), keys.modality("size_factor_key")
    return (
        *(modality_fields(keys) if keys.modalities else typed_modality_fields(keys)),
        *protein_fields_of(keys),
        Category("batch", keys.batch_key, of_batch),
        Category("labels", None),
        Numbers("size_factor", keys.size_factor_key[:1], True, of_sizes),
        Numbers("region_size_factor", keys.size_factor_key[1:2], True, of_sizes),
        Categories(
            "categorical",
            keys.categorical_covariate_keys,
            keys.modality("categorical_covariate_keys"),
        ),
        Numbers(
            "continuous",
            keys.continuous_covariate_keys,
            modality=keys.modality("continuous_covariate_keys"),
        ),
    )


def modality_fields(keys: MultimodalKeys) -> list[Field]:
    """Fields of the genes and regions of a MuData."""
    of_genes, of_regions = map(keys.modality, ("rna_layer", "atac_layer"))
    fields: list[Field] = []
    if of_genes is not None:
        fields.append(Counts("counts", keys.layer, modality=of_genes, fill_absent=True))
    if of_regions is not None:
        fields.append(Regions("regions", keys.atac_layer, modality=of_regions, fill_absent=True))
    return fields


def typed_modality_fields(keys: MultimodalKeys) -> list[Field]:
    """Fields of the genes and regions of an AnnData, by the types of its features."""
    types = {GENES: (Counts, "counts"), REGIONS: (Regions, "regions")}
    return [
        kind(name, keys.layer, fill_absent=True, feature_type=feature_type)
        for feature_type, (kind, name) in types.items()
        if feature_type in keys.feature_types
    ]


def protein_fields_of(keys: MultimodalKeys) -> list[Field]:
    """Fields of the proteins and of their panel, which is the batch; none without proteins."""
    of_proteins, of_batch = keys.modality("protein_layer"), keys.modality("batch_key")
    if of_proteins is None and keys.protein_expression_obsm_key is None:
        return []
    proteins = Proteins(
        "proteins",
        keys.protein_expression_obsm_key if of_proteins is None else keys.protein_layer,
        names_key=keys.protein_names_uns_key,
        panel_key=keys.batch_key,
        panel_modality=of_batch,
        modality=of_proteins,
        fill_absent=True,
    )
    return [proteins, Category("panel", keys.batch_key, of_batch)]
