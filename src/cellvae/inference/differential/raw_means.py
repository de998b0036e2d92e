"""Means of the raw counts of populations, from one pass over their cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import GenerativeModule
from cellvae.inference.cell_pass import CellPass
from cellvae.inference.posterior_samples import first_observed

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
    module: GenerativeModule[Any], cell_pass: CellPass, populations: list[NDArray[np.int64]]
) -> RawMeans:
    """Means of the current counts of each population; the AnnData is not changed."""
    cells = np.unique(np.concatenate(populations))
    membership = torch.zeros(len(populations), len(cells))
    for i, indices in enumerate(populations):
        membership[i, torch.from_numpy(np.searchsorted(cells, indices))] = 1.0
    totals: list[Tensor] = []
    for positions, batch in cell_pass._replace(cells=torch.from_numpy(cells)).iter_batches():
        counts = first_observed(module, batch)
        weights = membership[:, positions].to(counts.device)
        library = counts.sum(dim=-1, keepdim=True)
        # A cell without counts has normalized counts of zero.
        scale = TARGET_SUM / library.clamp(min=torch.finfo(library.dtype).tiny)
        scale = torch.where(library > 0, scale, torch.zeros_like(scale)).T
        sums = (
            weights @ counts,
            weights @ (counts != 0).to(counts.dtype),
            (weights * scale) @ counts,
        )
        parts = [values.double() for values in sums]
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    n_cells = membership.sum(dim=-1, dtype=torch.float64).unsqueeze(-1).to(totals[0].device)
    return RawMeans(*(total / n_cells for total in totals))
