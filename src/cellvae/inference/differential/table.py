"""Table of differential expression, and the meaning of each of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from cellvae.data.setup.categories import Scalar, constant_column
from cellvae.inference.differential.bayes import select_at_fdr
from cellvae.inference.differential.groups import Comparison
from cellvae.inference.differential.raw_means import RawMeans

COLUMNS: Mapping[str, str] = {
    "proba_de": "Probability that the gene changes by at least `delta` (mode change)",
    "proba_not_de": "1 - `proba_de` (mode change)",
    "proba_m1": "Probability that expression is higher in the first population (mode vanilla)",
    "proba_m2": "1 - `proba_m1` (mode vanilla)",
    "bayes_factor": "Natural logarithm of the odds of `proba_de`, or of `proba_m1` (mode vanilla)",
    "scale1": "Mean normalized expression in the first population, as a share of the cell",
    "scale2": "Mean normalized expression in the second population, as a share of the cell",
    "pseudocounts": "Added to both expressions in the test and in all `lfc_` columns",
    "delta": "Least change that the test counts, in the units of `lfc_mean`",
    "lfc_mean": "Mean change over draws: log2 fold change, or what `change_fn` gives",
    "lfc_median": "Median of the change over draws",
    "lfc_std": "Standard deviation of the change over draws",
    "lfc_min": "Least change of any draw",
    "lfc_max": "Largest change of any draw",
    "raw_mean1": "Mean count in the first population",
    "raw_mean2": "Mean count in the second population",
    "non_zeros_proportion1": "Share of cells of the first population with counts of the gene",
    "non_zeros_proportion2": "Share of cells of the second population with counts of the gene",
    "raw_normalized_mean1": "Mean of counts per 10,000 of the cell in the first population",
    "raw_normalized_mean2": "Mean of counts per 10,000 of the cell in the second population",
    "is_de_fdr_*": "Whether the gene is called at the false discovery rate `*` (mode change)",
    "comparison": "`group1 vs group2` (with `groupby`)",
    "group1": "First population, as in the column of cells (with `groupby`)",
    "group2": "Second population, `Rest` for all other cells (with `groupby`)",
}
"""Meaning of each column, in their order."""


def comparison_table(
    values: Mapping[str, Tensor | NDArray | float],
    genes: Sequence[str],
    comparison: Comparison,
    counted: RawMeans | None,
    fdr: float,
) -> pd.DataFrame:
    """Table of one comparison, the likeliest genes first.

    Parameters
    ----------
    values
        Columns of the test.
    genes
        Names of the genes.
    comparison
        What was compared.
    counted
        Means of the raw counts of all populations; None to leave their columns out.
    fdr
        False discovery rate of the genes that are called.
    """
    columns = {
        name: value.cpu().numpy() if isinstance(value, Tensor) else value
        for name, value in values.items()
    }
    if counted is not None:
        means = zip(
            ("raw_mean", "non_zeros_proportion", "raw_normalized_mean"), counted, strict=True
        )
        for name, by_population in means:
            columns[f"{name}1"] = by_population[comparison.first].cpu().numpy()
            columns[f"{name}2"] = by_population[comparison.second].cpu().numpy()
    table = pd.DataFrame(columns, index=pd.Index(genes))
    if "proba_de" in table:
        table[f"is_de_fdr_{fdr}"] = select_at_fdr(table["proba_de"].to_numpy(), fdr)
        table["size"] = table["lfc_mean"].abs()
        table = table.sort_values(["proba_de", "size"], ascending=False, kind="stable")
        table = table.drop(columns="size")
    else:
        table = table.sort_values("bayes_factor", ascending=False, kind="stable")
    return table if comparison.names is None else with_groups(table, comparison.names)


def with_groups(table: pd.DataFrame, names: tuple[Scalar, Scalar]) -> pd.DataFrame:
    """Table with columns that say what was compared; groups keep their type."""
    first, second = names
    table["comparison"] = f"{first} vs {second}"
    table["group1"] = constant_column(first, table.index)
    table["group2"] = constant_column(second, table.index)
    return table
