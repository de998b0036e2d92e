"""How well counts that a model draws resemble those that were measured, from one pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

N_BINS = 1000
"""Ranks that are told apart."""

LEAST_SHARE = 1e-5
"""Share of the counts of a cell that is added before fold changes are taken."""


@final
class GeneMoments:
    """Sums over cells of the counts of each gene, and of their squares; cells come in parts."""

    def __init__(self, n_genes: int) -> None:
        self.n_cells = 0
        self.total = torch.zeros(n_genes, dtype=torch.float64)
        self.squares = torch.zeros(n_genes, dtype=torch.float64)
        self.positive = torch.zeros(n_genes, dtype=torch.float64)

    def add(self, counts: Float[Tensor, "cells genes"]) -> None:
        """Add cells."""
        self.n_cells += len(counts)
        self.total += counts.sum(dim=0, dtype=torch.float64).cpu()
        self.squares += counts.square().sum(dim=0, dtype=torch.float64).cpu()
        self.positive += (counts != 0).sum(dim=0).cpu()

    def variation(self) -> NDArray[np.float64]:
        """Coefficient of variation of each gene over cells; NaN for a gene without counts."""
        mean = self.total / self.n_cells
        variance = (self.squares / self.n_cells - mean.square()).clamp(min=0)
        return (variance.sqrt() / mean).numpy()

    def zero_fraction(self) -> NDArray[np.float64]:
        """Share of the cells in which a gene has no count."""
        return (1 - self.positive / self.n_cells).numpy()


def variation_of_cells(counts: Float[Tensor, "cells genes"]) -> Float[Tensor, " cells"]:
    """Coefficient of variation of each cell over genes; NaN for a cell without counts."""
    deviation, mean = torch.std_mean(counts.double(), dim=1, correction=0)
    return deviation / mean


@final
class Ranks:
    """Ranks of measured counts among draws, from 0 to 1, as a histogram.

    If the model is right, a measured count and the draws for it are alike, and any of them is the
    smallest, second smallest and so on with the same probability. Ties are broken at random, so
    that this holds for counts too, where intervals of quantiles always hold too many.
    """

    def __init__(self) -> None:
        self.histogram = torch.zeros(N_BINS, dtype=torch.float64)

    def add(self, below: Tensor, equal: Tensor, n_draws: int) -> None:
        """Add counts, by the number of their draws that are below and equal to them."""
        position = (below + torch.rand(below.shape, device=below.device) * (equal + 1)) / (
            n_draws + 1
        )
        bins = (position * N_BINS).long().clamp(max=N_BINS - 1).reshape(-1)
        self.histogram += torch.bincount(bins, minlength=N_BINS).cpu()

    def below(self, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the counts below each quantile of the model."""
        cumulative = np.concatenate([[0.0], self.histogram.cumsum(dim=0).numpy()])
        edges = np.arange(N_BINS + 1) / N_BINS
        return np.interp(quantiles, edges, cumulative / cumulative[-1])

    def coverage(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """Share of the counts that are in the central interval of each level."""
        half = np.asarray(levels) / 2
        return self.below(0.5 + half) - self.below(0.5 - half)


@final
class GroupMoments:
    """Means and variances of logarithms of expression in groups of cells; cells come in parts."""

    def __init__(self, n_groups: int, n_genes: int, scale: float) -> None:
        self.scale = scale
        self.sizes = np.zeros(n_groups)
        self.total = np.zeros((n_groups, n_genes))
        self.squares = np.zeros((n_groups, n_genes))

    def add(self, counts: Float[Tensor, "cells genes"], groups: Tensor) -> None:
        """Add cells; their counts are scaled to the same sum, and log(1 + x) is taken."""
        counts = counts.clamp(min=0)
        sums = counts.sum(dim=1, keepdim=True).clamp(min=1e-8)
        values = torch.log1p(counts * (self.scale / sums)).double()
        member = torch.nn.functional.one_hot(groups, len(self.sizes)).double().T
        self.sizes += member.sum(dim=1).cpu().numpy()
        self.total += (member @ values).cpu().numpy()
        self.squares += (member @ values.square()).cpu().numpy()

    def against_rest(self, group: int) -> pd.DataFrame:
        """Welch's t test of a group against all other cells, one row a gene.

        Columns: `t`, `p_value` adjusted by Benjamini and Hochberg, `lfc` (base 2,
        one count in 100,000 added to both, so that genes that are not seen do not decide).
        """
        from scipy.stats import false_discovery_control, ttest_ind_from_stats

        mean, deviation, n = self.described(np.arange(len(self.sizes)) == group)
        mean_rest, deviation_rest, n_rest = self.described(np.arange(len(self.sizes)) != group)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = ttest_ind_from_stats(
                mean, deviation, n, mean_rest, deviation_rest, n_rest, equal_var=False
            )
        p_value = np.nan_to_num(found.pvalue, nan=1.0)
        least = LEAST_SHARE * self.scale
        lfc = np.log2((np.expm1(mean) + least) / (np.expm1(mean_rest) + least))
        return pd.DataFrame(
            {
                "t": np.nan_to_num(found.statistic, nan=0.0),
                "p_value": false_discovery_control(p_value),
                "lfc": lfc,
            }
        )

    def described(self, groups: NDArray[np.bool_]) -> tuple[NDArray, NDArray, float]:
        """Mean and standard deviation of each gene in these groups together, and their size."""
        n = float(self.sizes[groups].sum())
        mean = self.total[groups].sum(axis=0) / n
        variance = (self.squares[groups].sum(axis=0) - n * mean**2) / max(1.0, n - 1)
        return mean, np.sqrt(variance.clip(min=0)), n


def recovery(
    measured: pd.DataFrame, drawn: pd.DataFrame, p_threshold: float, n_top: int
) -> dict[str, float]:
    """How much of the differential expression in measured counts is there in drawn ones.

    Genes count as found if their adjusted p value is below the threshold; the `n_top` first ones
    where none is. Shares are between 0 and 1, fold changes are of base 2.
    """
    from scipy.stats import pearsonr, rankdata, spearmanr

    true, got = (found_genes(table, p_threshold, n_top) for table in (measured, drawn))
    both = float((true & got).sum())
    recall, precision = both / true.sum(), both / got.sum()
    ranks = rankdata(drawn["t"].abs())
    n_true, n_false = true.sum(), (~true).sum()
    area = (ranks[true].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false) if n_false else 1.0
    seen = np.isfinite(measured["t"]) & (measured["t"] != 0) & (drawn["t"] != 0)
    first, second = measured["lfc"][seen], drawn["lfc"][seen]
    enough = len(first) > 1
    return {
        "recall": recall,
        "precision": precision,
        "f1": 2 * both / float(true.sum() + got.sum()),
        "roc_auc": float(area),
        "lfc_mae": float((first - second).abs().mean()),
        "lfc_pearson": float(pearsonr(first, second)[0]) if enough else np.nan,
        "lfc_spearman": float(spearmanr(first, second)[0]) if enough else np.nan,
    }


def found_genes(table: pd.DataFrame, p_threshold: float, n_top: int) -> NDArray[np.bool_]:
    """Genes that are told to differ."""
    found = (table["p_value"] < p_threshold).to_numpy()
    if found.any():
        return found
    # Not written into `found`, which pandas 3 makes read-only.
    most = np.argsort(-table["t"].abs().to_numpy(), kind="stable")[:n_top]
    return np.isin(np.arange(len(table)), most)


def agreement(measured: NDArray, drawn: NDArray) -> dict[str, float]:
    """Mean absolute error and correlations of a statistic of measured and of drawn counts."""
    from scipy.stats import pearsonr, spearmanr

    seen = np.isfinite(measured) & np.isfinite(drawn)
    first, second = measured[seen], drawn[seen]
    varies = len(first) > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    return {
        "mean_absolute_error": float(np.abs(first - second).mean()) if len(first) else np.nan,
        "pearson": float(pearsonr(first, second)[0]) if varies else np.nan,
        "spearman": float(spearmanr(first, second)[0]) if varies else np.nan,
    }
