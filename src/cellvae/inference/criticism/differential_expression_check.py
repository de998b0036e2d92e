"""Differential expression in measured counts and in counts drawn from models, compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError, did_you_mean

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DE_METHODS = ("t-test", "t-test_overestim_var", "wilcoxon")
"""Tests of `scanpy.tl.rank_genes_groups` that give p values and fold changes."""

SUMMARY_SCORES = (
    *("gene_f1", "lfc_mae", "lfc_pearson", "lfc_spearman", "roc_auc", "pr_auc"),
    *("group", "model", "n_cells", "recall", "precision"),
)
"""Columns of the summary; the first nine are those of scvi-tools."""


class Thresholds(NamedTuple):
    """Which genes count as differentially expressed."""

    p_value: float
    """Adjusted p value below which a gene does."""
    n_top_genes: int
    """Genes that do where none, or more than half of them, are below it."""


class GroupComparison(NamedTuple):
    """Measured and drawn differential expression of one group."""

    scores: dict[str, float]
    lfc: pd.DataFrame
    """Log2 fold changes of each gene, columns `raw` and `approx`."""


def check_method(method: str) -> None:
    """Check that a test is one of those that can be compared.

    Raises
    ------
    InvalidOptionError
        If it is not.
    """
    if method not in DE_METHODS:
        raise InvalidOptionError(
            f"Expected de_method to be one of {', '.join(DE_METHODS)}; got {method!r}."
            f"{did_you_mean(str(method), DE_METHODS)}"
        )


def check_groups(groups: pd.Series, key: str) -> None:
    """Check that groups of cells can be compared with each other.

    Raises
    ------
    InvalidOptionError
        If there are fewer than two groups, or a group has a single cell.
    """
    sizes = np.bincount(groups.cat.codes, minlength=len(groups.cat.categories))
    if len(sizes) < 2:
        raise InvalidOptionError(
            f"Expected at least two groups in {key} among these cells; got {len(sizes)}."
        )
    if sizes.min() < 2:
        small = [str(groups.cat.categories[i]) for i in np.flatnonzero(sizes < 2)]
        raise InvalidOptionError(
            f"Expected at least two cells in each group of {key}; got one in "
            f"{', '.join(small[:5])}. Leave them out with indices=, or merge them with others."
        )


def leiden_clusters(counts: csr_matrix, scale: float) -> pd.Series:
    """Leiden clusters of cells by their normalized counts, from scanpy.

    Raises
    ------
    InvalidOptionError
        If igraph is not installed.
    """
    import scanpy as sc

    try:
        import igraph  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise InvalidOptionError(
            "Expected de_groupby=<column of adata.obs>; without it cells are grouped by Leiden "
            "clusters, for which the package igraph is not installed. Give a column, or run: "
            "pip install igraph"
        ) from error
    cells = normalize_counts(counts, scale, pd.Series(["all"] * counts.shape[0], dtype="category"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.pca(cells)
        sc.pp.neighbors(cells)
        sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, key_added="group")
    return cells.obs["group"].reset_index(drop=True)


def normalize_counts(counts: csr_matrix, scale: float, groups: pd.Series) -> Any:
    """AnnData of logarithms of normalized counts, with groups by number: their names may be any."""
    import scanpy as sc
    from anndata import AnnData

    numbers = pd.Categorical.from_codes(
        groups.cat.codes, [str(i) for i in range(len(groups.cat.categories))]
    )
    cells = AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame({"group": numbers}, index=[str(i) for i in range(counts.shape[0])]),
        var=pd.DataFrame(index=[str(i) for i in range(counts.shape[1])]),
    )
    with warnings.catch_warnings():
        # Draws of a cell may all be 0.
        warnings.simplefilter("ignore")
        sc.pp.normalize_total(cells, target_sum=scale)
        sc.pp.log1p(cells)
    return cells


def rank_genes(
    counts: csr_matrix, groups: pd.Series, method: str, scale: float
) -> list[pd.DataFrame]:
    """Genes of each group by their score against all other cells, by scanpy, the first first.

    Returns
    -------
    A table for each group with the number of each gene as index.
    """
    import scanpy as sc

    cells = normalize_counts(counts, scale, groups)
    with warnings.catch_warnings():
        # Fragmented tables, and genes without any count.
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(cells, "group", use_raw=False, method=method)
        tables = [
            sc.get.rank_genes_groups_df(cells, group=group)
            for group in cells.obs["group"].cat.categories
        ]
    return [table.set_index(table["names"].astype(int)) for table in tables]


def compare_group(
    measured: pd.DataFrame, draws: Sequence[pd.DataFrame], thresholds: Thresholds
) -> GroupComparison:
    """How far draws have the differential expression of one group in measured counts.

    Scores are means over draws.
    """
    aligned = [drawn.reindex(measured.index) for drawn in draws]
    scores = [
        {
            "gene_f1": top_genes_f1(measured, drawn, thresholds.n_top_genes),
            **fold_change_scores(measured, again),
            **ranking_scores(measured, again, thresholds),
        }
        for drawn, again in zip(draws, aligned, strict=True)
    ]
    fold_changes = np.mean([table["logfoldchanges"] for table in aligned], axis=0)
    return GroupComparison(
        pd.DataFrame(scores).mean().to_dict(),
        pd.DataFrame(
            {"raw": measured["logfoldchanges"], "approx": fold_changes}, index=measured.index
        ),
    )


def top_genes_f1(measured: pd.DataFrame, drawn: pd.DataFrame, n_top: int) -> float:
    """Share of the first genes that both have: the F1 score, since both have as many."""
    return len(measured.index[:n_top].intersection(drawn.index[:n_top])) / n_top


def fold_change_scores(measured: pd.DataFrame, drawn: pd.DataFrame) -> dict[str, float]:
    """Agreement of the log2 fold changes of all genes."""
    from scipy.stats import pearsonr, spearmanr

    first, second = (table["logfoldchanges"].to_numpy(float) for table in (measured, drawn))
    with warnings.catch_warnings():
        # A constant has no correlation: NaN.
        warnings.simplefilter("ignore")
        return {
            "lfc_mae": float(np.abs(first - second).mean()),
            "lfc_pearson": float(pearsonr(first, second)[0]),
            "lfc_spearman": float(spearmanr(first, second)[0]),
        }


def ranking_scores(
    measured: pd.DataFrame, drawn: pd.DataFrame, thresholds: Thresholds
) -> dict[str, float]:
    """How well scores of draws rank the genes found in measured counts, and how many are found."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    below, below_drawn = (
        table["pvals_adj"].to_numpy() < thresholds.p_value for table in (measured, drawn)
    )
    true = below
    if not 0 < true.sum() <= 0.5 * len(true):
        true = np.zeros(len(true), dtype=bool)
        true[np.argsort(measured["pvals_adj"].to_numpy())[: thresholds.n_top_genes]] = True
    scores = drawn["scores"].to_numpy()
    both = float((below & below_drawn).sum())
    return {
        "roc_auc": float(roc_auc_score(true, scores)),
        "pr_auc": float(average_precision_score(true, scores)),
        "recall": both / below.sum() if below.any() else np.nan,
        "precision": both / below_drawn.sum() if below_drawn.any() else np.nan,
    }


def compare_groups(
    measured: Sequence[pd.DataFrame],
    draws: Mapping[str, Sequence[Sequence[pd.DataFrame]]],
    groups: pd.Series,
    genes: NDArray[np.object_],
    thresholds: Thresholds,
) -> dict[str, Any]:
    """Scores of all groups and models, and the fold changes of each gene.

    Parameters
    ----------
    measured
        Ranked genes of each group in measured counts.
    draws
        The same for each draw of each model.
    groups
        Group of each cell.
    genes
        Names of the genes.
    thresholds
        Which genes count as found.

    Returns
    -------
    `"summary"`, a table with a row for each model and group, and `"lfc_per_model_per_group"`.
    """
    sizes = np.bincount(groups.cat.codes, minlength=len(groups.cat.categories))
    rows: list[dict[str, Any]] = []
    fold_changes: dict[str, dict[str, pd.DataFrame]] = {name: {} for name in draws}
    for name, of_model in draws.items():
        for i, group in enumerate(groups.cat.categories):
            found = compare_group(measured[i], [tables[i] for tables in of_model], thresholds)
            about = {"group": group, "model": name, "n_cells": int(sizes[i])}
            rows.append(found.scores | about)
            fold_changes[name][str(group)] = found.lfc.set_axis(genes[found.lfc.index], axis=0)
    summary = pd.DataFrame(rows)[[*SUMMARY_SCORES]]
    return {"lfc_per_model_per_group": fold_changes, "summary": summary}
