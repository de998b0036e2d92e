"""Multinomial distribution without its coefficient, for topic models."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from cellvae.distributions.protocol import pick_mean


class BagOfWords(Distribution):
    """Multinomial distribution of counts without the multinomial coefficient.

    The probability is that of the draws in a given order: the coefficient, the number of orders
    with the same counts, does not depend on the parameters.

    Parameters
    ----------
    shares
        Probability of each feature, [*samples, cells, features]; sums to one over features.
    size
        Number of draws of each cell, [cells, 1].

    Examples
    --------
    >>> import torch
    >>> counts = BagOfWords(torch.tensor([[0.5, 0.5]]), torch.tensor([[3.0]]))
    >>> counts.log_prob(torch.tensor([[1.0, 2.0]])).sum()
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
        """Mean of the counts for "mu", probability of each feature for "scale"."""
        return pick_mean(key, self.mean, self.shares)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*samples cells features"]:
        """Contribution of each feature to the log-probability of the counts, in nats."""
        tiny = torch.finfo(self.shares.dtype).tiny
        return value * self.shares.clamp(min=tiny).log()
