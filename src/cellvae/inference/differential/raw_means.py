"""Means of the raw counts of populations, in one pass over their cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.inference.cell_pass import CellPass

NORMALIZED_TO = 1e4
"""Size of a cell that normalized counts add up to."""


class RawMeans(NamedTuple):
    """Means over the cells of each population, [populations, genes], in double precision."""

    mean: Float[Tensor, "populations genes"]
    """Counts."""
    non_zero: Float[Tensor, "populations genes"]
    """Share of cells with counts."""
    normalized: Float[Tensor, "populations genes"]
    """Counts per 10,000 of the cell."""

    def of_populations(self, populations: list[int]) -> RawMeans:
        """Means of some populations, in this order."""
        return RawMeans(*(values[populations] for values in self))


def raw_count_means(asked: CellPass, populations: list[NDArray[np.int64]]) -> RawMeans:
    """Means of the counts as they are now; nothing is kept on the AnnData."""
    cells = np.unique(np.concatenate(populations))
    within = torch.zeros(len(populations), len(cells))
    for place, numbers in enumerate(populations):
        within[place, torch.from_numpy(np.searchsorted(cells, numbers))] = 1.0
    totals: list[Tensor] = []
    for positions, batch in asked._replace(cells=torch.from_numpy(cells)).iter_batches():
        counts = batch.counts
        chosen = within[:, positions].to(counts.device)
        sizes = counts.sum(dim=-1, keepdim=True)
        # A cell without counts adds nothing.
        share = NORMALIZED_TO / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)
        share = torch.where(sizes > 0, share, torch.zeros_like(share)).T
        sums = (chosen @ counts, chosen @ (counts != 0).to(counts.dtype), (chosen * share) @ counts)
        parts = [values.double() for values in sums]
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    numbers_of_cells = within.sum(dim=-1, dtype=torch.float64).unsqueeze(-1).to(totals[0].device)
    return RawMeans(*(total / numbers_of_cells for total in totals))
