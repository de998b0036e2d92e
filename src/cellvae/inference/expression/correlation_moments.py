"""Coefficients of correlation between genes, from draws that come in parts."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@final
class CorrelationMoments:
    """Sums over draws that Pearson's coefficients are made of, in double precision."""

    def __init__(self, n_genes: int) -> None:
        self.n_draws = 0
        self.sums = torch.zeros(n_genes, dtype=torch.float64)
        self.products = torch.zeros(n_genes, n_genes, dtype=torch.float64)
        self.origin: Tensor | None = None

    def add(self, part: Float[Tensor, "draws genes"]) -> None:
        """Add draws."""
        part = part.double()
        if self.origin is None:
            # Sums of squares lose fewer digits close to the mean.
            self.origin = part.mean(dim=0)
        part = part - self.origin
        self.sums += part.sum(dim=0)
        self.products.addmm_(part.T, part)
        self.n_draws += len(part)

    def coefficients(self) -> np.ndarray:
        """Pearson's coefficients, [genes, genes]; not a number for a gene that does not vary."""
        centred = self.products - torch.outer(self.sums, self.sums) / self.n_draws
        # What is left of rounding where all draws are equal.
        least = torch.finfo(torch.float64).eps * self.products.diagonal()
        spread = centred.diagonal()
        spread = torch.where(spread > least, spread, 0.0).sqrt()
        result = (centred / torch.outer(spread, spread)).clamp(-1, 1)
        return result.fill_diagonal_(1.0).where(torch.outer(spread, spread) > 0, torch.nan).numpy()


@final
class RankedDraws:
    """Draws of each gene in order, among which further draws have a rank."""

    def __init__(self, n_genes: int, n_draws: int) -> None:
        self.values = torch.empty(n_genes, n_draws)
        self.filled = 0

    def add(self, part: Float[Tensor, "draws genes"]) -> None:
        """Add draws; they are in order once all are there."""
        self.values[:, self.filled : self.filled + len(part)] = part.T
        self.filled += len(part)
        if self.filled == self.values.shape[1]:
            self.values = self.values.sort(dim=1).values

    def ranks(self, part: Float[Tensor, "draws genes"]) -> Float[Tensor, "draws genes"]:
        """Ranks of draws among those in order; that of a tie is the mean over the tie."""
        asked = part.T.contiguous()
        below = torch.searchsorted(self.values, asked)
        up_to = torch.searchsorted(self.values, asked, right=True)
        return (below + up_to).T / 2
