"""Differential expression of genes and proteins between groups of cells, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cellvae.contracts import GenerativeModule
from cellvae.core.options import check_arguments
from cellvae.data.setup.categories import Scalar
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import INTEGERS, check_choice
from cellvae.inference.differential.arguments import (
    CellGroups,
    PosteriorSampler,
    expression_test,
)
from cellvae.inference.differential.engine import differential
from cellvae.inference.differential.hypothesis import ChangeFunction
from cellvae.inference.differential.quantity import Measured, Quantity
from cellvae.inference.differential.raw_means import RawMeans
from cellvae.inference.differential.table import expression_table
from cellvae.inference.proteins.protein_expression import ProteinOptions, protein_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.batches.indexing import Cells

FIELDS = ("rna", "protein")
"""Names of what can be tested."""
PROTEIN_SUFFIX = "_protein"
"""Added to the names of proteins, which may be names of genes too."""


@check_arguments(only=INTEGERS)
def differential_joint_expression(
    model: DecoderModel,
    adata: AnnData | None = None,
    groupby: str | None = None,
    group1: Scalar | Sequence[Scalar] | None = None,
    group2: Scalar | None = None,
    idx1: Cells = None,
    idx2: Cells = None,
    mode: Literal["change", "vanilla"] = "change",
    delta: float | None = 0.25,
    batch_size: int | None = None,
    all_stats: bool = True,
    batch_correction: bool = False,
    batchid1: Sequence[Scalar] | None = None,
    batchid2: Sequence[Scalar] | None = None,
    fdr_target: float = 0.05,
    silent: bool = False,
    protein_prior_count: float = 0.1,
    scale_protein: bool = False,
    sample_protein_mixing: bool = False,
    include_protein_background: bool = False,
    use_field: Sequence[str] | None = None,
    pseudocounts: float | None = 1e-5,
    weights: Literal["uniform", "importance"] = "uniform",
    filter_outlier_cells: bool = False,
    importance_weighting_kwargs: Mapping[str, Any] | None = None,
    *,
    n_samples_overall: int = 5_000,
    test_mode: Literal["two", "three"] = "three",
    change_fn: Literal["log-fold"] | ChangeFunction | None = None,
) -> pd.DataFrame:
    """Test which genes and proteins are differentially expressed between groups of cells.

    Proteins are compared without their background, as :func:`get_joint_expression` returns them;
    their rows have names that end in `_protein`. For other arguments, see
    :func:`~cellvae.inference.differential_expression`.

    Parameters
    ----------
    model, adata, groupby, group1, group2, idx1, idx2, mode, delta, batch_size, all_stats
        As in :func:`~cellvae.inference.differential_expression`. With `all_stats`, statistics of a
        protein are over the cells in which it was measured, and `raw_normalized_mean` is NaN.
    batch_correction, batchid1, batchid2, fdr_target, silent, weights, filter_outlier_cells
        As in :func:`~cellvae.inference.differential_expression`.
    importance_weighting_kwargs, n_samples_overall, test_mode, change_fn
        As in :func:`~cellvae.inference.differential_expression`.
    protein_prior_count
        Counts that are added to the expression of every protein; `scale1` and `scale2` of proteins
        include them.
    scale_protein
        Whether the proteins of a cell are divided by their sum.
    sample_protein_mixing
        Whether a protein is foreground or background is sampled, in place of its probability.
    include_protein_background
        Whether background counts are included.
    use_field
        `["rna"]` or `["protein"]` to test one of them only.
    pseudocounts
        Added to all values before the logarithm; None to estimate it from features with a mean
        count below 0.01.

    Returns
    -------
    DataFrame with a row for each feature and comparison; its columns are those of
    :func:`~cellvae.inference.differential_expression`.

    Raises
    ------
    NotTrainedError, DataMismatchError, UnknownKeyError, InvalidOptionError
        As in :func:`~cellvae.inference.differential_expression`.
    """
    arguments = locals()
    if not 0 <= protein_prior_count < float("inf"):
        raise InvalidOptionError(
            f"Expected protein_prior_count to be at least 0; got {protein_prior_count!r}."
        )
    fields = check_fields(use_field)
    options = ProteinOptions(
        sample_mixing=sample_protein_mixing,
        scale=scale_protein,
        include_background=include_protein_background,
    )
    names = [*(model.registration.genes if "rna" in fields else ())]
    n_genes = len(names)
    if "protein" in fields:
        names += [f"{name}{PROTEIN_SUFFIX}" for name in protein_names(model)]

    def make_table(columns: Any, raw_means: RawMeans | None) -> pd.DataFrame:
        if raw_means is not None:
            normalized = raw_means.normalized.clone()
            normalized[:, n_genes:] = np.nan
            raw_means = raw_means._replace(normalized=normalized)
        return expression_table(columns, raw_means, names, fdr_target)

    return differential(
        model,
        adata,
        CellGroups.of(arguments),
        PosteriorSampler.of(arguments),
        expression_test(arguments),
        make_table,
        raw_counts=all_stats,
        quantity=joint_quantity(model, fields, len(names), options, protein_prior_count),
    )


def check_fields(use_field: Sequence[str] | None) -> tuple[str, ...]:
    """Outputs to test, in the order of the table.

    Raises
    ------
    InvalidOptionError
        If there are none, or one is neither `"rna"` nor `"protein"`.
    """
    if use_field is None:
        return FIELDS
    given = [use_field] if isinstance(use_field, str) else [*use_field]
    for name in given:
        check_choice("use_field", name, FIELDS)
    if not given:
        raise InvalidOptionError("Expected 'rna' or 'protein' in use_field; got neither.")
    return tuple(name for name in FIELDS if name in given)


def joint_quantity(
    model: DecoderModel,
    fields: tuple[str, ...],
    n_features: int,
    options: ProteinOptions,
    protein_prior_count: float,
) -> Quantity:
    """Normalized expression of genes and expression of proteins, concatenated."""
    module = model.module

    def decode(latent: Any, batch: Any) -> Tensor:
        decoded = decode_fields(module, latent, batch, fields)
        values = {
            "rna": lambda: decoded["rna"].get_normalized("scale"),
            "protein": lambda: options.expression(decoded["protein"]) + protein_prior_count,
        }
        return torch.cat([values[name]() for name in fields], dim=-1)

    def expected_counts(latent: Any, batch: Any) -> Tensor:
        decoded = decode_fields(module, latent, batch, fields)
        return torch.cat([decoded[name].mean for name in fields], dim=-1)

    def measure_counts(batch: Any) -> Measured:
        observed, masks = module.observed_values(batch), module.measurement_masks(batch)
        counts = torch.cat([observed[name] for name in fields], dim=-1)
        mask = None
        if any(name in masks for name in fields):
            every = torch.ones_like
            parts = [
                masks[name].expand(observed[name].shape)
                if name in masks
                else every(observed[name], dtype=torch.bool)
                for name in fields
            ]
            mask = torch.cat(parts, dim=-1)
        library_size = observed["rna"].sum(dim=-1, keepdim=True)
        return Measured(counts, library_size, mask)

    return Quantity(n_features, decode, expected_counts, measure_counts)


def decode_fields(
    module: GenerativeModule[Any], latent: Any, batch: Any, fields: tuple[str, ...]
) -> dict[str, Any]:
    """Distributions of some outputs; a single one is decoded without the others."""
    if len(fields) == 1:
        return {fields[0]: module.decode_output(latent, batch, fields[0])}
    return module.decode(latent, batch)
