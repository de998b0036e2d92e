"""Differential expression of groups of cells: the question and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.data.setup.categories import Scalar
from cellvae.data.storage.column import lacks_counts
from cellvae.inference.arguments import INTEGERS
from cellvae.inference.cell_pass import eval_mode, plan_pass
from cellvae.inference.differential.arguments import (
    check_batches,
    check_choice,
    check_group_arguments,
    check_ranges,
)
from cellvae.inference.differential.groups import (
    Comparison,
    Populations,
    populations_of_cells,
    populations_of_column,
)
from cellvae.inference.differential.hypothesis import ChangeFunction, TestSpec, run_test
from cellvae.inference.differential.outliers import drop_outliers
from cellvae.inference.differential.posterior_pool import (
    PosteriorPool,
    decode_population,
    expected_counts,
    sample_pool,
)
from cellvae.inference.differential.raw_means import RawMeans, raw_count_means
from cellvae.inference.differential.resampling import resample_pool
from cellvae.inference.differential.table import comparison_table
from cellvae.inference.likelihood.importance_options import importance_options
from cellvae.inference.progress import with_progress
from cellvae.inference.protocols import DecoderModel
from cellvae.inference.transform_batch import batch_codes

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
    """Genes that differ between groups of cells, with the probability that they do.

    Cells of each population are chosen at random before anything is computed, and those of all
    populations are encoded in one pass. What is kept are draws of the latent; populations are
    decoded two at a time. Memory: 8 bytes for each draw and gene (80 MB for 5,000 draws of 2,000
    genes), however many groups and cells there are. Random numbers come from torch's global
    generator.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with.
    groupby
        Column of `adata.obs` with the group of each cell.
    group1
        Group, or several, each compared by itself; None for all.
    group2
        Group to compare with; None for all other cells.
    idx1, idx2
        Cells in place of groups: a query of `adata.obs` (`"cell_type == 'B'"`), a mask, numbers or
        names. Without `idx2`, all other cells.
    mode
        `"change"`: whether expression changes by at least `delta` (Boyeau et al. 2019);
        `"vanilla"`: whether it is higher in the first population (Lopez et al. 2018).
    delta
        Least change that counts, a log2 fold change; None to estimate it from the mean changes of
        all genes.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    all_stats
        Whether the table has means of raw counts, which takes a pass over all cells compared. False
        for minified cells without counts.
    batch_correction
        Whether draws of both populations are decoded as if they came from the same batches, and
        compared batch by batch; otherwise each is decoded for the batch of its cell.
    batchid1, batchid2
        Batches for the draws of each population; None for all batches of the model. If they differ
        between populations, draws are paired at random and batch effects are part of the change.
    fdr_target
        Expected share of false genes among those called.
    silent
        Whether no progress is shown.
    weights
        `"importance"` takes, for each draw, one of 25 candidates by p(x, z) / q(z | x).
    filter_outlier_cells
        Whether the tenth of each population that lies apart in the latent space is left out.
    importance_weighting_kwargs
        With `weights="importance"`, options of :func:`get_importance_weights` (`max_cells`,
        `truncation`, `n_mc_samples`, `n_mc_samples_per_pass`): the draws of a population are then
        chosen by weights over all its cells, as in scvi-tools, which takes far longer.
    n_samples_overall
        Draws for each population, each of a cell chosen at random with replacement.
    test_mode
        `"three"`: up and down are separate, and the likelier of them counts; `"two"`: both
        together.
    pseudocounts
        Added to expressions before the logarithm; None to estimate it from genes with a mean count
        below 0.01, or, where counts were dropped, with an expected count below 0.01 under the
        model. It is used for `proba_de` and for all `lfc_` columns. scvi-tools reports `lfc_`
        with a thousandth of it, so that its columns of one gene are on two scales.
    change_fn
        Function of two arrays [draws, genes] and the pseudocount that gives the change; None or
        `"log-fold"` for log2 fold changes. It may be called for some of the genes at a time.

    Returns
    -------
    DataFrame with a row for each gene and comparison: comparisons in the order asked, in each the
    likeliest genes first, then those with the larger change. Columns, with their meanings in
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
        If an argument has a value that it cannot take, or a population has no cells.
    """
    import pandas as pd

    check_choice("mode", mode, ("change", "vanilla"))
    check_choice("test_mode", test_mode, ("three", "two"))
    check_choice("weights", weights, ("uniform", "importance"))
    if not callable(change_fn) and change_fn is not None:
        check_choice("change_fn", change_fn, ("log-fold",))
    check_group_arguments(groupby, group1, group2, idx1, idx2)
    check_ranges(delta, pseudocounts, fdr_target, n_samples_overall)
    check_batches(batch_correction, batchid1, batchid2)
    by_population = importance_options(importance_weighting_kwargs, weights)
    question = TestSpec(
        mode, delta, test_mode, pseudocounts, change_fn if callable(change_fn) else None
    )
    importance = weights == "importance"
    estimates = mode == "change" and pseudocounts is None
    counts = all_stats or (estimates and not lacks_counts(model.rows_for(adata)))
    asked = plan_pass(model, adata, None, batch_size, silent=silent, counts=counts or importance)
    codes = sample_batch_codes(model, batch_correction, batchid1, batchid2, n_samples_overall)
    whole: Any = model.adata if adata is None else adata
    found = (
        populations_of_cells(whole, idx1, idx2)
        if groupby is None
        else populations_of_column(whole, groupby, group1, group2)
    )
    if filter_outlier_cells:
        found = found._replace(cells=drop_outliers(model, adata, found.cells, batch_size))
    tables = []
    with eval_mode(model):
        counted = raw_count_means(asked, found.cells) if counts else None
        per_cell = importance and by_population is None
        pool = sample_pool(model.module, asked, found.cells, n_samples_overall, importance=per_cell)
        if by_population is not None:
            pool = resample_pool(model, adata, found.cells, pool, by_population, batch_size)
        for place, first, second in iter_comparisons(model, pool, found, codes, silent):
            comparison = found.comparisons[place]
            columns = run_test(
                question, first, second, means_of(model, pool, comparison, counted, estimates)
            )
            shown = counted if all_stats else None
            genes = model.registration.genes
            tables.append(comparison_table(columns, genes, comparison, shown, fdr_target))
    return pd.concat(tables)


def means_of(
    model: DecoderModel,
    pool: PosteriorPool,
    comparison: Comparison,
    counted: RawMeans | None,
    estimates: bool,
) -> tuple[Tensor, Tensor] | None:
    """Mean counts of both populations, from the model where cells have none.

    None where there are no counts and nothing is estimated from them.
    """
    first, second = comparison.first, comparison.second
    if counted is not None:
        return counted.mean[first], counted.mean[second]
    if not estimates:
        return None
    n_genes = model.registration.n_genes
    return (
        expected_counts(model.module, pool, first, n_genes),
        expected_counts(model.module, pool, second, n_genes),
    )


def sample_batch_codes(
    model: DecoderModel,
    batch_correction: bool,
    batchid1: Sequence[Scalar] | None,
    batchid2: Sequence[Scalar] | None,
    n_draws: int,
) -> tuple[Tensor | None, Tensor | None]:
    """Batch that each draw of a first and of a second population is decoded for, [draws, 1]."""
    if not batch_correction:
        return None, None
    every = model.registration.categories("batch")
    both = [
        sorted({code for code in batch_codes(model.registration, chosen) if code is not None})
        for chosen in (every if ids is None else ids for ids in (batchid1, batchid2))
    ]
    draws = torch.arange(n_draws)
    first, second = (torch.tensor(codes)[draws * len(codes) // n_draws] for codes in both)
    if both[0] != both[1]:
        second = second[torch.randperm(n_draws)]
    return first.unsqueeze(-1).to(model.device), second.unsqueeze(-1).to(model.device)


def iter_comparisons(
    model: DecoderModel,
    pool: PosteriorPool,
    found: Populations,
    codes: tuple[Tensor | None, Tensor | None],
    silent: bool,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Place of each comparison with the draws of its populations; a shared one is decoded once."""
    n_genes = model.registration.n_genes
    kept: tuple[int, Tensor] | None = None
    steps = ((slice(i, i + 1), pair) for i, pair in enumerate(found.comparisons))
    for place, comparison in with_progress(steps, len(found.comparisons), silent=silent):
        if kept is None or kept[0] != comparison.second:
            kept = None
            values = decode_population(model.module, pool, comparison.second, n_genes, codes[1])
            kept = (comparison.second, values)
        first = decode_population(model.module, pool, comparison.first, n_genes, codes[0])
        yield place.start, first, kept[1]
