"""Bag of words: features drawn one by one, in proportion to their shares."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from cellvae.distributions.protocol import pick_mean


class BagOfWords(Distribution):
    """Counts of features that are drawn one after another, in proportion to their shares.

    The probability is that of the draws in their order, without the number of orders that give the
    same counts (the multinomial coefficient), which depends on the counts alone.

    Parameters
    ----------
    shares
        Chance of each feature at each draw, [*samples, cells, features]; sums to one.
    size
        Number of draws of each cell, [cells, 1].

    Examples
    --------
    >>> import torch
    >>> words = BagOfWords(torch.tensor([[0.5, 0.5]]), torch.tensor([[3.0]]))
    >>> words.log_prob(torch.tensor([[1.0, 2.0]])).sum()
    tensor(-2.0794)
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(
        self,
        shares: Float[Tensor, "*samples cells features"],
        size: Float[Tensor, "cells 1"],
    ) -> None:
        self.shares = shares
        self.size = size
        super().__init__(shares.shape, validate_args=False)

    @property
    def mean(self) -> Float[Tensor, "*samples cells features"]:
        """Expected counts."""
        return self.size * self.shares

    @property
    def variance(self) -> Float[Tensor, "*samples cells features"]:
        """Variance of the counts."""
        return self.mean * (1 - self.shares)

    def get_normalized(self, key: str) -> Float[Tensor, "*samples cells features"]:
        """Mean of the counts for "mu", share of each feature for "scale"."""
        return pick_mean(key, self.mean, self.shares)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*samples cells features"]:
        """Part that each feature has in the log-probability of the counts, in nats."""
        least = torch.finfo(self.shares.dtype).tiny
        return value * self.shares.clamp(min=least).log()
