"""Means of the raw counts of populations, from one pass over their cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.inference.cell_pass import CellPass
from cellvae.inference.differential.quantity import Measured

TARGET_SUM = 1e4
"""Sum of the normalized counts of a cell."""


class RawMeans(NamedTuple):
    """Means over the cells of each population, [populations, genes], in double precision."""

    mean: Float[Tensor, "populations genes"]
    """Mean count."""
    non_zero: Float[Tensor, "populations genes"]
    """Fraction of cells with counts."""
    normalized: Float[Tensor, "populations genes"]
    """Mean of counts per 10,000 of the cell."""

    def of_populations(self, populations: list[int]) -> RawMeans:
        """Means of some populations, in this order."""
        return RawMeans(*(values[populations] for values in self))


def raw_count_means(
    measure_counts: Callable[[Any], Measured],
    cell_pass: CellPass,
    populations: list[NDArray[np.int64]],
) -> RawMeans:
    """Means of the current counts of each population, over the cells in which they were measured.

    The AnnData is not changed. Where a feature was measured in no cell of a population, its means
    are NaN.

    Parameters
    ----------
    measure_counts
        Measured counts of a batch of cells.
    cell_pass
        Cells.
    populations
        Indices of the cells of each population.
    """
    cells = np.unique(np.concatenate(populations))
    membership = torch.zeros(len(populations), len(cells))
    for i, indices in enumerate(populations):
        membership[i, torch.from_numpy(np.searchsorted(cells, indices))] = 1.0
    totals: list[Tensor] = []
    for positions, batch in cell_pass._replace(cells=torch.from_numpy(cells)).iter_batches():
        counts, library, mask = measure_counts(batch)
        weights = membership[:, positions].to(counts.device)
        # A cell without counts has normalized counts of zero.
        scale = TARGET_SUM / library.clamp(min=torch.finfo(library.dtype).tiny)
        scale = torch.where(library > 0, scale, torch.zeros_like(scale)).T
        sums = (
            weights @ counts,
            weights @ (counts != 0).to(counts.dtype),
            (weights * scale) @ counts,
            weights.sum(dim=-1, keepdim=True)
            if mask is None
            else weights @ mask.expand(counts.shape).to(counts.dtype),
        )
        parts = [values.double() for values in sums]
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    *sums_of_values, n_cells = totals
    return RawMeans(*(total / n_cells for total in sums_of_values))
