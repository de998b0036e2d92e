"""Metrics of posterior predictive checks, accumulated over batches of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

N_BINS = 1000
"""Bins of the histogram of ranks."""


@final
class GeneMoments:
    """Running sums over cells of the counts of each gene and of their squares."""

    def __init__(self, n_genes: int) -> None:
        self.n_cells = torch.zeros(n_genes, dtype=torch.float64)
        self.total = torch.zeros(n_genes, dtype=torch.float64)
        self.squares = torch.zeros(n_genes, dtype=torch.float64)
        self.positive = torch.zeros(n_genes, dtype=torch.float64)

    def add(
        self,
        counts: Float[Tensor, "cells genes"],
        mask: Bool[Tensor, "cells genes"] | None = None,
    ) -> None:
        """Add cells; counts that a mask leaves out were not measured."""
        if mask is None:
            self.n_cells += len(counts)
        else:
            self.n_cells += mask.sum(dim=0).cpu()
            counts = torch.where(mask, counts, 0.0)
        self.total += counts.sum(dim=0, dtype=torch.float64).cpu()
        self.squares += counts.square().sum(dim=0, dtype=torch.float64).cpu()
        self.positive += (counts != 0).sum(dim=0).cpu()

    def variation(self) -> NDArray[np.float64]:
        """Coefficient of variation of each gene over cells; NaN for a gene without counts."""
        mean = self.total / self.n_cells
        variance = (self.squares / self.n_cells - mean.square()).clamp(min=0)
        return (variance.sqrt() / mean).numpy()

    def zero_fraction(self) -> NDArray[np.float64]:
        """Fraction of the cells in which each gene has no count."""
        return (1 - self.positive / self.n_cells).numpy()


def variation_of_cells(
    counts: Float[Tensor, "cells genes"], mask: Bool[Tensor, "cells genes"] | None = None
) -> Float[Tensor, " cells"]:
    """Coefficient of variation of each cell over measured genes; NaN for one without counts."""
    if mask is None:
        std, mean = torch.std_mean(counts.double(), dim=1, correction=0)
        return std / mean
    values, n_genes = torch.where(mask, counts, 0.0).double(), mask.sum(dim=1)
    mean = values.sum(dim=1) / n_genes
    squares = torch.where(mask, values - mean.unsqueeze(1), 0.0).square().sum(dim=1)
    return (squares / n_genes).sqrt() / mean


@final
class Ranks:
    """Ranks of measured counts among draws, from 0 to 1, as a histogram.

    Under a calibrated model, a measured count and its draws are exchangeable, so that all ranks of
    the count are equally probable. Ties are broken at random, so that this holds for counts too,
    of which intervals between quantiles contain too many.
    """

    def __init__(self) -> None:
        self.histogram = torch.zeros(N_BINS, dtype=torch.float64)

    def add(self, below: Tensor, equal: Tensor, n_draws: int, mask: Tensor | None = None) -> None:
        """Add measured counts, given the numbers of draws below and equal to each of them."""
        if mask is not None:
            below, equal = below[mask], equal[mask]
        position = (below + torch.rand(below.shape, device=below.device) * (equal + 1)) / (
            n_draws + 1
        )
        bins = (position * N_BINS).long().clamp(max=N_BINS - 1).reshape(-1)
        self.histogram += torch.bincount(bins, minlength=N_BINS).cpu()

    def below(self, quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fraction of the counts below each quantile of the model."""
        cumulative = np.concatenate([[0.0], self.histogram.cumsum(dim=0).numpy()])
        edges = np.arange(N_BINS + 1) / N_BINS
        return np.interp(quantiles, edges, cumulative / cumulative[-1])

    def coverage(self, levels: Sequence[float]) -> NDArray[np.float64]:
        """Fraction of the counts in the central interval of each level."""
        half = np.asarray(levels) / 2
        return self.below(0.5 + half) - self.below(0.5 - half)


def interpolated_quantiles(
    draws: Float[Tensor, "draws cells genes"], quantiles: Sequence[float]
) -> Float[Tensor, "quantiles cells genes"]:
    """Quantiles of draws by linear interpolation, in double precision."""
    ordered = draws.double().sort(dim=0).values
    positions = torch.as_tensor(np.asarray(quantiles, dtype=float) * (len(ordered) - 1))
    below = positions.floor().long()
    lower = ordered[below]
    upper = ordered[(below + 1).clamp(max=len(ordered) - 1)]
    fraction = (positions - below).to(ordered.device)[:, None, None]
    gap = upper - lower
    # Exact at both ends, as numpy.quantile is.
    return torch.where(fraction < 0.5, lower + gap * fraction, upper - gap * (1 - fraction))


@final
class IntervalCoverage:
    """Running fraction of measured counts within intervals between quantiles of draws.

    Parameters
    ----------
    quantiles
        An even number, ascending: the first and the last bound the outermost interval, and so on.
    """

    def __init__(self, quantiles: Sequence[float]) -> None:
        self.quantiles = np.asarray(quantiles, dtype=float)
        self.n_inside = torch.zeros(len(self.quantiles) // 2, dtype=torch.float64)
        self.n_counts = 0

    def add(
        self,
        measured: Float[Tensor, "cells genes"],
        draws: Float[Tensor, "draws cells genes"],
        mask: Bool[Tensor, "cells genes"] | None = None,
    ) -> None:
        """Add cells; an interval contains its bounds, and a mask selects measured counts."""
        bounds = interpolated_quantiles(draws, self.quantiles.tolist())
        n = len(self.n_inside)
        lower, upper = bounds[:n], bounds[n:].flip(0)
        values = measured.double()
        inside = (values >= lower) & (values <= upper)
        if mask is not None:
            inside &= mask
        self.n_inside += inside.sum(dim=(1, 2)).cpu()
        self.n_counts += measured.numel() if mask is None else int(mask.sum())

    def error(self) -> float:
        """Sum over intervals of the squared difference of coverage and level; 0 is best."""
        n = len(self.n_inside)
        levels = self.quantiles[::-1][:n] - self.quantiles[:n]
        return float(((self.n_inside.numpy() / self.n_counts - levels) ** 2).sum())


def compare_statistics(measured: NDArray, drawn: NDArray) -> dict[str, float]:
    """Mean absolute error and correlations of a statistic of measured and of drawn counts."""
    from scipy.stats import pearsonr, spearmanr

    finite = np.isfinite(measured) & np.isfinite(drawn)
    first, second = measured[finite], drawn[finite]
    varies = len(first) > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    return {
        "mean_absolute_error": float(np.abs(first - second).mean()) if len(first) else np.nan,
        "pearson": float(pearsonr(first, second)[0]) if varies else np.nan,
        "spearman": float(spearmanr(first, second)[0]) if varies else np.nan,
        "r2": r_squared(first, second) if varies else np.nan,
    }


def r_squared(measured: NDArray, drawn: NDArray) -> float:
    """Coefficient of determination of drawn values, predicted by the measured values themselves.

    As in scvi-tools; it can be negative.
    """
    residual = np.square(drawn - measured).sum()
    return float(1 - residual / np.square(drawn - drawn.mean()).sum())
