"""How well counts that a model draws resemble those that were measured, from one pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

N_BINS = 1000
"""Ranks that are told apart."""


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


def interpolated_quantiles(
    draws: Float[Tensor, "draws cells genes"], quantiles: Sequence[float]
) -> Float[Tensor, "quantiles cells genes"]:
    """Quantiles of draws, linear between the two draws next to each, in double precision."""
    ordered = draws.double().sort(dim=0).values
    places = torch.as_tensor(np.asarray(quantiles, dtype=float) * (len(ordered) - 1))
    below = places.floor().long()
    lower = ordered[below]
    upper = ordered[(below + 1).clamp(max=len(ordered) - 1)]
    share = (places - below).to(ordered.device)[:, None, None]
    gap = upper - lower
    # Exact at both ends, as numpy.quantile is.
    return torch.where(share < 0.5, lower + gap * share, upper - gap * (1 - share))


@final
class IntervalCoverage:
    """Shares of measured counts within intervals of quantiles of draws; cells come in parts.

    Parameters
    ----------
    quantiles
        Rising, of even number: the first and the last bound the first interval, and so on inwards.
    """

    def __init__(self, quantiles: Sequence[float]) -> None:
        self.quantiles = np.asarray(quantiles, dtype=float)
        self.n_inside = torch.zeros(len(self.quantiles) // 2, dtype=torch.float64)
        self.n_counts = 0

    def add(
        self,
        measured: Float[Tensor, "cells genes"],
        draws: Float[Tensor, "draws cells genes"],
    ) -> None:
        """Add cells; a count on a bound is within the interval."""
        bounds = interpolated_quantiles(draws, self.quantiles.tolist())
        n = len(self.n_inside)
        lower, upper = bounds[:n], bounds[n:].flip(0)
        values = measured.double()
        inside = (values >= lower) & (values <= upper)
        self.n_inside += inside.sum(dim=(1, 2)).cpu()
        self.n_counts += measured.numel()

    def error(self) -> float:
        """Sum over intervals of the squared difference of coverage and level; 0 is best."""
        n = len(self.n_inside)
        levels = self.quantiles[::-1][:n] - self.quantiles[:n]
        return float(((self.n_inside.numpy() / self.n_counts - levels) ** 2).sum())


def compare_statistics(measured: NDArray, drawn: NDArray) -> dict[str, float]:
    """Mean absolute error and correlations of a statistic of measured and of drawn counts."""
    from scipy.stats import pearsonr, spearmanr

    seen = np.isfinite(measured) & np.isfinite(drawn)
    first, second = measured[seen], drawn[seen]
    varies = len(first) > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    return {
        "mean_absolute_error": float(np.abs(first - second).mean()) if len(first) else np.nan,
        "pearson": float(pearsonr(first, second)[0]) if varies else np.nan,
        "spearman": float(spearmanr(first, second)[0]) if varies else np.nan,
        "r2": r_squared(first, second) if varies else np.nan,
    }


def r_squared(measured: NDArray, drawn: NDArray) -> float:
    """Share of the variance of a drawn statistic that the measured one itself accounts for.

    The coefficient of determination of the line through the origin with slope 1, with the drawn
    values as the ones to be explained, as in scvi-tools; it can be negative.
    """
    residual = np.square(drawn - measured).sum()
    return float(1 - residual / np.square(drawn - drawn.mean()).sum())
