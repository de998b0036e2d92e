"""Keys and fields of the models of genes, regions of chromatin and surface proteins."""

from __future__ import annotations

from dataclasses import dataclass

from cellvae.data.setup.fields import (
    Categories,
    Category,
    Counts,
    Field,
    Numbers,
    Proteins,
    Regions,
)
from cellvae.data.setup.keys import MuDataKeys


@dataclass(frozen=True, kw_only=True)
class MultimodalKeys(MuDataKeys):
    """Names of the counts of genes, regions and proteins, the batch and the covariates.

    The modalities of a MuData that are read are those with an entry in `modalities`.

    Parameters
    ----------
    layer
        Layer with the counts of the genes; `X` by default. `rna_layer` of `setup_mudata`.
    atac_layer
        Layer with the counts of the regions; `X` by default.
    protein_layer
        Layer with the counts of the proteins; `X` by default.
    batch_key
        Column of `obs` with the batch of each cell.
    size_factor_key
        Columns of `obs` with the library size of the genes of each cell and, if there are two, the
        probability that an accessible region of it is detected.
    categorical_covariate_keys
        Columns of `obs` with categorical covariates to correct for.
    continuous_covariate_keys
        Columns of `obs` with continuous covariates to correct for.
    modalities
        Modality of a MuData in which each key is found, by `rna_layer`, `atac_layer`,
        `protein_layer`, `batch_key` and so on.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

    layer: str | None = None
    atac_layer: str | None = None
    protein_layer: str | None = None
    batch_key: str | None = None
    size_factor_key: tuple[str, ...] = ()
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()


def multimodal_fields(keys: MultimodalKeys) -> tuple[Field, ...]:
    """Fields of a model of several modalities, in a fixed order.

    A modality may lack cells of the MuData; their counts are read as zeros.
    """
    of_genes, of_regions, of_proteins = map(
        keys.modality, ("rna_layer", "atac_layer", "protein_layer")
    )
    of_batch, of_sizes = keys.modality("batch_key"), keys.modality("size_factor_key")
    counts: list[Field] = []
    if of_genes is not None:
        counts.append(Counts("counts", keys.layer, modality=of_genes, fill_absent=True))
    if of_regions is not None:
        counts.append(Regions("regions", keys.atac_layer, modality=of_regions, fill_absent=True))
    if of_proteins is not None:
        proteins = Proteins(
            "proteins",
            keys.protein_layer,
            panel_key=keys.batch_key,
            panel_modality=of_batch,
            modality=of_proteins,
            fill_absent=True,
        )
        counts += [proteins, Category("panel", keys.batch_key, of_batch)]
    return (
        *counts,
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
