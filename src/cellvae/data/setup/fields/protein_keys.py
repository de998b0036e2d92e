"""Keys and fields of the models of genes and surface proteins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cellvae.data.setup.fields import Categories, Category, Counts, Field, Labels, Numbers, Proteins
from cellvae.data.setup.keys import MuDataKeys, check_modalities
from cellvae.errors import InvalidOptionError, did_you_mean, quote_names


@dataclass(frozen=True, kw_only=True)
class ProteinKeys(MuDataKeys):
    """Names of the counts of genes and proteins, the batch, the panel and the covariates.

    Parameters
    ----------
    layer
        Layer with the counts of the genes; `X` by default. `rna_layer` of `setup_mudata`.
    protein_expression_obsm_key
        Entry of `adata.obsm` with the counts of the proteins; None for a MuData.
    protein_names_uns_key
        Entry of `adata.uns` with the names of the proteins; by default the columns of the entry of
        `obsm`, or numbers.
    protein_layer
        Layer of the modality of a MuData with the counts of the proteins; `X` by default.
    batch_key
        Column of `obs` with the batch of each cell.
    panel_key
        Column of `obs` with the panel of proteins that was measured in each cell; the batch by
        default.
    size_factor_key
        Column of `obs` with the size factor of each cell, above 0.
    categorical_covariate_keys
        Columns of `obs` with categorical covariates to correct for.
    continuous_covariate_keys
        Columns of `obs` with continuous covariates to correct for.
    modalities
        Modality of a MuData in which each key is found, by `rna_layer`, `protein_layer`,
        `batch_key` and so on.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

    layer: str | None = None
    protein_expression_obsm_key: str | None = None
    protein_names_uns_key: str | None = None
    protein_layer: str | None = None
    batch_key: str | None = None
    panel_key: str | None = None
    size_factor_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()

    @property
    def unused_keys(self) -> tuple[str, ...]:
        """Keys that the set-up that was called does not have."""
        if self.modalities:
            return ("protein_expression_obsm_key", "protein_names_uns_key")
        return ("protein_layer", "modalities")

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
        Column of `obs` with the label of each labelled cell.
    unlabeled_category
        Value of that column for unlabelled cells.
    layer, protein_expression_obsm_key, protein_names_uns_key, protein_layer, batch_key, panel_key
        As in :class:`ProteinKeys`.
    size_factor_key, categorical_covariate_keys, continuous_covariate_keys, modalities
        As in :class:`ProteinKeys`.

    Raises
    ------
    InvalidOptionError
        If a name is not a string, or a list of names is a string or has a repeated name.
    """

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


def check_required_modalities(
    modalities: Mapping[str, str | None] | None,
    required: Sequence[str],
    arguments: Sequence[str],
) -> dict[str, str]:
    """Modality of each argument of `setup_mudata`.

    Parameters
    ----------
    modalities
        What the user gave.
    required
        Arguments that must have a modality.
    arguments
        All arguments that may have one.

    Raises
    ------
    InvalidOptionError
        If one is missing, or there is no such argument.
    """
    given = check_modalities(modalities)
    unknown = [name for name in given if name not in arguments]
    if unknown:
        raise InvalidOptionError(
            f"Expected modalities of {quote_names(arguments, most=20)}; got '{unknown[0]}'."
            f"{did_you_mean(unknown[0], arguments)}"
        )
    missing = [name for name in required if name not in given]
    if missing:
        example = {"rna_layer": "rna", "protein_layer": "protein", "atac_layer": "atac"}
        shown = {name: example.get(name, "...") for name in required}
        raise InvalidOptionError(
            f"Expected a modality for {quote_names(missing)} in modalities; got "
            f"{quote_names([*given]) or 'none'}. Give for example modalities={shown!r}."
        )
    return given
