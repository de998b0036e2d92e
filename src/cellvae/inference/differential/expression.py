"""Differential expression of genes between groups of cells."""

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
from cellvae.inference.differential.table import expression_table
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.data.batches.indexing import Cells


@check_arguments(only=INTEGERS)
def differential_expression(
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
    weights: Literal["uniform", "importance"] = "uniform",
    filter_outlier_cells: bool = False,
    importance_weighting_kwargs: Mapping[str, Any] | None = None,
    *,
    n_samples_overall: int = 5_000,
    test_mode: Literal["two", "three"] = "three",
    pseudocounts: float | None = None,
    change_fn: Literal["log-fold"] | ChangeFunction | None = None,
) -> pd.DataFrame:
    """Test which genes are differentially expressed between groups of cells.

    Random cells of each population are chosen first, and those of all populations are encoded in
    one pass. Only posterior samples of the latent are stored; populations are decoded two at a
    time. Memory is 8 bytes for each sample and gene (80 MB for 5,000 samples of 2,000 genes) and
    does not grow with the number of groups or cells. Random numbers come from torch's global
    generator.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    groupby
        Column of `adata.obs` with the group of each cell.
    group1
        Group, or several, each of which is compared; None for all.
    group2
        Group to compare with; None for all other cells.
    idx1, idx2
        Cells in place of groups: a query of `adata.obs` (`"cell_type == 'B'"`), a mask, indices or
        names. Without `idx2`, all other cells.
    mode
        `"change"`: whether expression changes by at least `delta` (Boyeau et al. 2019);
        `"vanilla"`: whether it is higher in the first population (Lopez et al. 2018).
    delta
        Smallest change that counts, a log2 fold change; None to estimate it from the mean changes
        of all genes.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    all_stats
        Whether the table has means of raw counts, which take a pass over all compared cells. False
        for minified cells without counts.
    batch_correction
        Whether samples of both populations are decoded as if they came from the same batches, and
        compared batch by batch; otherwise each is decoded for the batch of its cell.
    batchid1, batchid2
        Batches for the samples of each population; None for all batches of the model. If they
        differ between populations, samples are paired at random, and batch effects are part of the
        change.
    fdr_target
        Expected fraction of false discoveries among the called genes.
    silent
        Whether the progress bar is hidden.
    weights
        `"importance"` chooses each sample from 25 candidates, by weights p(x, z) / q(z | x).
    filter_outlier_cells
        Whether a tenth of each population, its outliers in the latent space, is left out.
    importance_weighting_kwargs
        With `weights="importance"`, options of :func:`get_importance_weights` (`max_cells`,
        `truncation`, `n_mc_samples`, `n_mc_samples_per_pass`): the samples of a population are
        then chosen by weights over all its cells, as in scvi-tools, which takes far longer.
    n_samples_overall
        Number of samples for each population, each of a random cell, chosen with replacement.
    test_mode
        `"three"`: changes up and down are separate hypotheses, and the more probable one counts;
        `"two"`: both together.
    pseudocounts
        Added to expressions before the logarithm; None to estimate it from genes with a mean count
        below 0.01, or, where counts were dropped, with an expected count below 0.01 under the
        model. It is used for `proba_de` and for all `lfc_` columns, whereas scvi-tools uses a
        thousandth of it for `lfc_` columns.
    change_fn
        Function of two arrays [samples, genes] and the pseudocount that returns the change; None or
        `"log-fold"` for log2 fold changes. It may be called with a subset of the genes.

    Returns
    -------
    DataFrame with a row for each gene and comparison. Comparisons are in the requested order, and
    genes of each are sorted by probability, then by change. Columns, with their meanings in
    `cellvae.inference.differential.table.COLUMNS`: `proba_de`, `proba_not_de` (mode vanilla:
    `proba_m1`, `proba_m2`), `bayes_factor`, `scale1`, `scale2`, `pseudocounts`, `delta`,
    `lfc_mean`, `lfc_median`, `lfc_std`, `lfc_min`, `lfc_max`; with `all_stats` `raw_mean1`,
    `raw_mean2`, `non_zeros_proportion1`, `non_zeros_proportion2`, `raw_normalized_mean1`,
    `raw_normalized_mean2`; `is_de_fdr_*`; with `groupby` `comparison`, `group1`, `group2`.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model, or counts are needed and were
        dropped: `all_stats=False` with uniform weights needs none.
    UnknownKeyError
        If there is no such column, group or batch.
    InvalidOptionError
        If an argument has an invalid value, or a population has no cells.
    """
    arguments = locals()
    return differential(
        model,
        adata,
        CellGroups.of(arguments),
        PosteriorSampler.of(arguments),
        expression_test(arguments),
        partial(expression_table, genes=model.registration.genes, fdr=fdr_target),
        raw_counts=all_stats,
    )
