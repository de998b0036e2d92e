"""Tables of differential tests, and the meaning of each of their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from cellvae.data.setup.categories import Scalar, constant_column
from cellvae.inference.differential.bayes import select_at_fdr
from cellvae.inference.differential.raw_means import RawMeans

COLUMNS: Mapping[str, str] = {
    "proba_de": "Probability that the gene changes by at least `delta` (mode change)",
    "proba_not_de": "1 - `proba_de` (mode change)",
    "proba_m1": "Probability that expression is higher in the first population (mode vanilla)",
    "proba_m2": "1 - `proba_m1` (mode vanilla)",
    "bayes_factor": "Natural logarithm of the odds of `proba_de`, or of `proba_m1` (mode vanilla)",
    "scale1": "Mean normalized expression in the first population, as a fraction of the cell",
    "scale2": "Mean normalized expression in the second population, as a fraction of the cell",
    "pseudocounts": "Added to both expressions in the test and in all `lfc_` columns",
    "delta": "Smallest change that the test counts, in the units of `lfc_mean`",
    "lfc_mean": "Mean change over samples: log2 fold change, or what `change_fn` returns",
    "lfc_median": "Median of the change over samples",
    "lfc_std": "Standard deviation of the change over samples",
    "lfc_min": "Smallest change of any sample",
    "lfc_max": "Largest change of any sample",
    "raw_mean1": "Mean count in the first population",
    "raw_mean2": "Mean count in the second population",
    "non_zeros_proportion1": "Fraction of cells of the first population with counts of the gene",
    "non_zeros_proportion2": "Fraction of cells of the second population with counts of the gene",
    "raw_normalized_mean1": "Mean of counts per 10,000 of the cell in the first population",
    "raw_normalized_mean2": "Mean of counts per 10,000 of the cell in the second population",
    "is_de_fdr_*": "Whether the gene is called at the false discovery rate `*` (mode change)",
    "comparison": "`group1 vs group2` (with `groupby`)",
    "group1": "First population, as in the column of cells (with `groupby`)",
    "group2": "Second population, `Rest` for all other cells (with `groupby`)",
}
"""Meaning of each column of differential expression, in their order."""

ACCESSIBILITY_COLUMNS: Mapping[str, str] = {
    "prob_da": "Probability that the region differs by at least `delta`; in mode vanilla that it "
    "is more accessible in the first population",
    "is_da_fdr": "Whether the region is called at the false discovery rate (mode change)",
    "bayes_factor": "Natural logarithm of the odds of `prob_da`",
    "effect_size": "Estimated accessibility in the second population minus that in the first",
    "emp_effect": "Fraction of cells with counts in the second population minus that in the first",
    "est_prob1": "Estimated accessibility in the first population",
    "est_prob2": "Estimated accessibility in the second population",
    "emp_prob1": "Fraction of cells with counts in the first population",
    "emp_prob2": "Fraction of cells with counts in the second population",
    "comparison": "`group1 vs group2` (with `groupby`)",
    "group1": "First population, as in the column of cells (with `groupby`)",
    "group2": "Second population, `Rest` for all other cells (with `groupby`)",
}
"""Meaning of each column of differential accessibility, in their order."""


def expression_table(
    columns: Mapping[str, NDArray[Any] | float],
    raw_means: RawMeans | None,
    genes: Sequence[str],
    fdr: float,
) -> pd.DataFrame:
    """Table of one comparison of expression, the most probable genes first.

    Parameters
    ----------
    columns
        Results of the test.
    raw_means
        Means of the raw counts of both populations; None to leave their columns out.
    genes
        Names of the genes.
    fdr
        False discovery rate of the genes that are called.
    """
    values = dict(columns)
    if raw_means is not None:
        names = ("raw_mean", "non_zeros_proportion", "raw_normalized_mean")
        for name, (first, second) in zip(names, raw_means, strict=True):
            values[f"{name}1"] = first.cpu().numpy()
            values[f"{name}2"] = second.cpu().numpy()
    table = pd.DataFrame(values, index=pd.Index(genes))
    if "proba_de" not in table:
        return table.sort_values("bayes_factor", ascending=False, kind="stable")
    table[f"is_de_fdr_{fdr}"] = select_at_fdr(table["proba_de"].to_numpy(), fdr)
    table["size"] = table["lfc_mean"].abs()
    table = table.sort_values(["proba_de", "size"], ascending=False, kind="stable")
    return table.drop(columns="size")


def accessibility_table(
    columns: Mapping[str, NDArray[Any] | float],
    raw_means: RawMeans | None,
    regions: Sequence[str],
    fdr: float,
) -> pd.DataFrame:
    """Table of one comparison of accessibility, the most probable regions first.

    Parameters
    ----------
    columns
        Results of the test.
    raw_means
        Means of the raw counts of both populations; None to leave their columns out.
    regions
        Names of the regions.
    fdr
        False discovery rate of the regions that are called.
    """
    in_change_mode = "proba_de" in columns
    probability = columns["proba_de" if in_change_mode else "proba_m1"]
    values: dict[str, Any] = {"prob_da": probability}
    if in_change_mode:
        values["is_da_fdr"] = select_at_fdr(probability, fdr)  # type: ignore[arg-type]
    values["bayes_factor"] = columns["bayes_factor"]
    values["effect_size"] = columns["scale2"] - columns["scale1"]
    if raw_means is not None:
        first, second = raw_means.non_zero.cpu().numpy()
        values["emp_effect"] = second - first
    values["est_prob1"], values["est_prob2"] = columns["scale1"], columns["scale2"]
    if raw_means is not None:
        values["emp_prob1"], values["emp_prob2"] = first, second
    table = pd.DataFrame(values, index=pd.Index(regions))
    size = table["effect_size"].abs().rename("size")
    order = pd.concat([table["prob_da"], size], axis=1)
    order = order.sort_values(["prob_da", "size"], ascending=False, kind="stable")
    return table.loc[order.index]


def add_group_columns(table: pd.DataFrame, names: tuple[Scalar, Scalar]) -> pd.DataFrame:
    """Add columns with the names of the compared groups, in the type that groups have."""
    first, second = names
    table["comparison"] = f"{first} vs {second}"
    table["group1"] = constant_column(first, table.index)
    table["group2"] = constant_column(second, table.index)
    return table
