"""Differential expression of the genes of a model of several modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from cellvae.core.options import check_arguments
from cellvae.data.setup.categories import Scalar
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.differential.arguments import (
    CellGroups,
    PosteriorSampler,
    expression_test,
)
from cellvae.inference.differential.engine import differential
from cellvae.inference.differential.hypothesis import ChangeFunction
from cellvae.inference.differential.quantity import output_quantity
from cellvae.inference.differential.table import expression_table
from cellvae.inference.output_features import features_of
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.batches.indexing import Cells


@check_arguments(only=INTEGERS)
def differential_modality_expression(
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
    pseudocounts: float | None = 1e-6,
    weights: Literal["uniform", "importance"] = "uniform",
    filter_outlier_cells: bool = False,
    importance_weighting_kwargs: Mapping[str, Any] | None = None,
    *,
    n_samples_overall: int = 5_000,
    test_mode: Literal["two", "three"] = "three",
    change_fn: Literal["log-fold"] | ChangeFunction | None = None,
) -> pd.DataFrame:
    """Test which genes are differentially expressed between groups of cells.

    Statistics of the counts are over the cells in which genes were measured, and NaN where there
    are none.

    Parameters
    ----------
    model, adata, groupby, group1, group2, idx1, idx2, mode, delta, batch_size, all_stats
        As in :func:`~cellvae.inference.differential_expression`.
    batch_correction, batchid1, batchid2, fdr_target, silent, weights, filter_outlier_cells
        As in :func:`~cellvae.inference.differential_expression`.
    importance_weighting_kwargs, n_samples_overall, test_mode, change_fn
        As in :func:`~cellvae.inference.differential_expression`.
    pseudocounts
        Added to all values before the logarithm; None to estimate it from genes with a mean count
        below 0.01.

    Returns
    -------
    DataFrame with a row for each gene and comparison; its columns are those of
    :func:`~cellvae.inference.differential_expression`.

    Raises
    ------
    NotTrainedError, DataMismatchError, UnknownKeyError, InvalidOptionError
        As in :func:`~cellvae.inference.differential_expression`; if the model has no genes, too.
    """
    arguments = locals()
    names = features_of(model, "rna")
    return differential(
        model,
        adata,
        CellGroups.of(arguments),
        PosteriorSampler.of(arguments),
        expression_test(arguments),
        partial(expression_table, genes=names, fdr=fdr_target),
        raw_counts=all_stats,
        quantity=output_quantity(model, "rna", len(names)),
    )
