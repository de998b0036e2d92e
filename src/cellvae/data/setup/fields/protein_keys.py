"""Keys and fields of the models of genes and surface proteins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cellvae.data.setup.fields import Categories, Category, Counts, Field, Labels, Numbers, Proteins
from cellvae.data.setup.mudata_keys import MuDataKeys
from cellvae.errors import InvalidOptionError

COVARIATES = ("size_factor_key", "categorical_covariate_keys", "continuous_covariate_keys")
LABELS = ("labels_key", "unlabeled_category")


@dataclass(frozen=True, kw_only=True)
class ProteinKeys(MuDataKeys):
    """Names of the counts of genes and proteins, the batch, the panel and the covariates.

    Parameters
    ----------
    protein_expression_obsm_key
        Entry of `adata.obsm` with the raw counts of the proteins: a DataFrame, an array or a sparse
        matrix, [cells, proteins].
    protein_names_uns_key
        Entry of `adata.uns` with the names of the proteins; by default the columns of the
        DataFrame, or numbers.
    batch_key
        Column of `adata.obs` with the batch of each cell.
    panel_key
        Column of `adata.obs` with the panel of proteins of each cell; the batch by default. A
        protein that is zero in all cells of a panel is taken as not measured there.
    layer
        Layer that holds the raw counts of genes; None for `X`.
    protein_layer
        Layer that holds the raw counts of proteins; None for `X`.
    size_factor_key
        Column of `adata.obs` with the library size of each cell, used in place of the sum of its
        gene counts.
    categorical_covariate_keys
        Columns of `adata.obs` with further categories to correct for.
    continuous_covariate_keys
        Columns of `adata.obs` with numbers to correct for.
    modalities
        Modality of each of these arguments, by its name; `rna_layer` and `protein_layer` are
        required. Columns without one are those of `mdata.obs`.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, a list of names is a string or has a repeated name, or neither an
        entry of `obsm` nor a modality has the proteins.
    """

    cells_text: ClassVar[str] = (
        "Cells, with raw counts of genes in `X` or in a layer, and of proteins in `obsm`."
    )
    mudata_text: ClassVar[str] = "Cells that have both modalities, in any order."
    anndata_keys: ClassVar[tuple[str, ...]] = (
        "protein_expression_obsm_key",
        "protein_names_uns_key",
        "batch_key",
        "panel_key",
        "layer",
        *COVARIATES,
    )
    required_keys: ClassVar[tuple[str, ...]] = ("protein_expression_obsm_key",)
    mudata_keys: ClassVar[tuple[str, ...]] = (
        "layer",
        "protein_layer",
        "batch_key",
        "panel_key",
        *COVARIATES,
    )
    table_arguments: ClassVar[tuple[str, ...]] = ("rna_layer", "protein_layer")

    layer: str | None = None
    protein_expression_obsm_key: str | None = None
    protein_names_uns_key: str | None = None
    protein_layer: str | None = None
    batch_key: str | None = None
    panel_key: str | None = None
    size_factor_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protein_expression_obsm_key is None and not self.modalities:
            raise InvalidOptionError(
                "Expected protein_expression_obsm_key, the entry of adata.obsm with the proteins; "
                "got None."
            )

    @property
    def repeated_fields(self) -> tuple[str, ...]:
        """Fields that read the same column as another one, of which scvi-tools has one."""
        return () if self.panel_key else ("panel",)

    @property
    def panel(self) -> tuple[str | None, str | None]:
        """Column with the panel of each cell, and its modality."""
        if self.panel_key is None:
            return self.batch_key, self.modality("batch_key")
        # scvi-tools has no modality of its own for the panel.
        named = self.modality("panel_key")
        return self.panel_key, named if named is not None else self.modality("batch_key")


@dataclass(frozen=True, kw_only=True)
class ProteinLabelKeys(ProteinKeys):
    """Names of the counts of genes and proteins, the labels, and the covariates.

    Parameters
    ----------
    labels_key
        Column of `adata.obs` with the label of each cell, where it is known; required.
    unlabeled_category
        Value of that column for cells whose label is not known, required; missing values count as
        well. No cell needs to have it.
    layer, protein_expression_obsm_key, protein_names_uns_key, protein_layer, batch_key, panel_key
        As in :class:`ProteinKeys`.
    size_factor_key, categorical_covariate_keys, continuous_covariate_keys, modalities
        As in :class:`ProteinKeys`.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

    anndata_keys: ClassVar[tuple[str, ...]] = (*ProteinKeys.anndata_keys, *LABELS)
    mudata_keys: ClassVar[tuple[str, ...]] = (*ProteinKeys.mudata_keys, *LABELS)
    keys_without_modality: ClassVar[tuple[str, ...]] = ("unlabeled_category",)

    labels_key: str = field()
    unlabeled_category: str = field()


def protein_label_fields(keys: ProteinLabelKeys) -> tuple[Field, ...]:
    """Fields of a model of genes, proteins and labels, in a fixed order."""
    labels = protein_labels_field(keys)
    return tuple(labels if other.name == labels.name else other for other in protein_fields(keys))


def protein_labels_field(keys: ProteinLabelKeys) -> Labels:
    """Field of the labels, where some cells are unlabelled."""
    return Labels("labels", keys.labels_key, keys.unlabeled_category, keys.modality("labels_key"))


def protein_fields(keys: ProteinKeys) -> tuple[Field, ...]:
    """Fields of a model of genes and proteins, in a fixed order."""
    of_proteins = keys.modality("protein_layer")
    panel_key, of_panel = keys.panel
    return (
        Counts("counts", keys.layer, modality=keys.modality("rna_layer")),
        *covariate_fields(keys),
        Category("panel", panel_key, of_panel),
        Proteins(
            "proteins",
            keys.protein_expression_obsm_key if of_proteins is None else keys.protein_layer,
            names_key=keys.protein_names_uns_key,
            panel_key=panel_key,
            panel_modality=of_panel,
            modality=of_proteins,
        ),
    )


def covariate_fields(keys: ProteinKeys) -> tuple[Field, ...]:
    """Fields of batch, label, size factor and covariates, in a fixed order."""
    size_factors = (keys.size_factor_key,) if keys.size_factor_key else ()
    return (
        Category("batch", keys.batch_key, keys.modality("batch_key")),
        Category("labels", None),
        Numbers("size_factor", size_factors, True, keys.modality("size_factor_key")),
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
