"""Comparison of differential expression in measured counts and in counts drawn from models."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellvae.inference.criticism.gene_ranking import check_groups, leiden_clusters, rank_genes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SUMMARY_SCORES = (
    *("gene_f1", "lfc_mae", "lfc_pearson", "lfc_spearman", "roc_auc", "pr_auc"),
    *("group", "model", "n_cells", "recall", "precision"),
)
"""Columns of the summary; the first nine are those of scvi-tools."""


class Thresholds(NamedTuple):
    """Which genes count as differentially expressed."""

    p_value: float
    """Largest adjusted p value of such a gene."""
    n_top_genes: int
    """Number of top genes that count instead, if none or more than half are below it."""


class GroupComparison(NamedTuple):
    """Agreement of measured and drawn differential expression of one group."""

    scores: dict[str, float]
    lfc: pd.DataFrame
    """Log2 fold changes of each gene, columns `raw` and `approx`."""


def compare_group(
    measured: pd.DataFrame, draws: Sequence[pd.DataFrame], thresholds: Thresholds
) -> GroupComparison:
    """Agreement of draws with the differential expression of one group in measured counts.

    Scores are means over draws.
    """
    aligned = [drawn.reindex(measured.index) for drawn in draws]
    scores = [
        {
            "gene_f1": top_genes_f1(measured, drawn, thresholds.n_top_genes),
            **fold_change_scores(measured, reindexed),
            **ranking_scores(measured, reindexed, thresholds),
        }
        for drawn, reindexed in zip(draws, aligned, strict=True)
    ]
    fold_changes = np.mean([table["logfoldchanges"] for table in aligned], axis=0)
    return GroupComparison(
        pd.DataFrame(scores).mean().to_dict(),
        pd.DataFrame(
            {"raw": measured["logfoldchanges"], "approx": fold_changes}, index=measured.index
        ),
    )


def top_genes_f1(measured: pd.DataFrame, drawn: pd.DataFrame, n_top: int) -> float:
    """F1 score of the top genes: the fraction that both share, since both have as many."""
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
    """How well drawn scores rank the genes found in measured counts; precision and recall."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    below, below_drawn = (
        table["pvals_adj"].to_numpy() < thresholds.p_value for table in (measured, drawn)
    )
    truth = below
    if not 0 < truth.sum() <= 0.5 * len(truth):
        truth = np.zeros(len(truth), dtype=bool)
        truth[np.argsort(measured["pvals_adj"].to_numpy())[: thresholds.n_top_genes]] = True
    scores = drawn["scores"].to_numpy()
    both = float((below & below_drawn).sum())
    return {
        "roc_auc": float(roc_auc_score(truth, scores)),
        "pr_auc": float(average_precision_score(truth, scores)),
        "recall": both / below.sum() if below.any() else np.nan,
        "precision": both / below_drawn.sum() if below_drawn.any() else np.nan,
    }


def compare_differential_expression(
    counts: Iterable[tuple[str, csr_matrix, list[csr_matrix]]],
    groups: pd.Series | None,
    genes: NDArray[np.object_],
    method: str,
    scale: float,
    thresholds: Thresholds,
) -> dict[str, Any]:
    """Differential expression in measured counts and in draws of each model, compared.

    Parameters
    ----------
    counts
        Name of each model, measured counts [cells, genes], and draws of them.
    groups
        Group of each cell; None for Leiden clusters of the measured counts.
    genes
        Names of the genes.
    method
        Test of `scanpy.tl.rank_genes_groups`.
    scale
        Sum that the counts of each cell are scaled to.
    thresholds
        Which genes count as differentially expressed.
    """
    measured: list[pd.DataFrame] | None = None
    draws: dict[str, list[list[pd.DataFrame]]] = {}
    for name, measured_counts, drawn_counts in counts:
        if groups is None:
            groups = leiden_clusters(measured_counts, scale)
            check_groups(groups, "the Leiden clusters")
        if measured is None:
            measured = rank_genes(measured_counts, groups, method, scale)
        draws[name] = [rank_genes(drawn, groups, method, scale) for drawn in drawn_counts]
    assert groups is not None and measured is not None
    return compare_groups(measured, draws, groups, genes, thresholds)


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
        Which genes count as differentially expressed.

    Returns
    -------
    `"summary"`, a table with a row for each model and group, and `"lfc_per_model_per_group"`.
    """
    sizes = np.bincount(groups.cat.codes, minlength=len(groups.cat.categories))
    rows: list[dict[str, Any]] = []
    fold_changes: dict[str, dict[str, pd.DataFrame]] = {name: {} for name in draws}
    for name, of_model in draws.items():
        for i, group in enumerate(groups.cat.categories):
            comparison = compare_group(measured[i], [tables[i] for tables in of_model], thresholds)
            identifiers = {"group": group, "model": name, "n_cells": int(sizes[i])}
            rows.append(comparison.scores | identifiers)
            fold_changes[name][str(group)] = comparison.lfc.set_axis(
                genes[comparison.lfc.index], axis=0
            )
    summary = pd.DataFrame(rows)[[*SUMMARY_SCORES]]
    return {"lfc_per_model_per_group": fold_changes, "summary": summary}
