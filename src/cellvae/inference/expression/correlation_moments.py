"""Correlation coefficients between genes, accumulated over chunks of samples."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@final
class CorrelationMoments:
    """Running moments for Pearson's coefficients, in double precision."""

    def __init__(self, n_genes: int) -> None:
        self.n_samples = 0
        self.sums = torch.zeros(n_genes, dtype=torch.float64)
        self.products = torch.zeros(n_genes, n_genes, dtype=torch.float64)
        self.origin: Tensor | None = None

    def add(self, part: Float[Tensor, "samples genes"]) -> None:
        """Add samples."""
        part = part.double()
        if self.origin is None:
            # Sums of squares around the mean lose fewer digits.
            self.origin = part.mean(dim=0)
        part = part - self.origin
        self.sums += part.sum(dim=0)
        self.products.addmm_(part.T, part)
        self.n_samples += len(part)

    def coefficients(self) -> np.ndarray:
        """Pearson's coefficients, [genes, genes]; NaN for a gene that does not vary."""
        centred = self.products - torch.outer(self.sums, self.sums) / self.n_samples
        # Equal samples have a variance of rounding errors.
        threshold = torch.finfo(torch.float64).eps * self.products.diagonal()
        spread = centred.diagonal()
        spread = torch.where(spread > threshold, spread, 0.0).sqrt()
        result = (centred / torch.outer(spread, spread)).clamp(-1, 1)
        return result.fill_diagonal_(1.0).where(torch.outer(spread, spread) > 0, torch.nan).numpy()


@final
class RankTable:
    """Sorted samples of each gene, among which other samples are ranked."""

    def __init__(self, n_genes: int, n_samples: int) -> None:
        self.values = torch.empty(n_genes, n_samples)
        self.filled = 0

    def add(self, part: Float[Tensor, "samples genes"]) -> None:
        """Add samples; they are sorted once the table is full."""
        self.values[:, self.filled : self.filled + len(part)] = part.T
        self.filled += len(part)
        if self.filled == self.values.shape[1]:
            self.values = self.values.sort(dim=1).values

    def ranks(self, part: Float[Tensor, "samples genes"]) -> Float[Tensor, "samples genes"]:
        """Ranks of samples among those of the table; ties have their mean rank."""
        values = part.T.contiguous()
        below = torch.searchsorted(self.values, values)
        up_to = torch.searchsorted(self.values, values, right=True)
        return (below + up_to).T / 2
