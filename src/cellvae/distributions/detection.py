"""Bernoulli distribution of the detection of regions: whether their count is above zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional

from cellvae.distributions.protocol import pick_mean


class Detection(Distribution):
    """Bernoulli distribution of a count being above zero, with a factor for missed detections.

    A region is detected with the probability sigmoid(`logits`) exp(`log_factor`).

    Parameters
    ----------
    logits
        Log-odds of a region being accessible.
    log_factor
        Logarithm of the probability that an accessible region is detected; at most 0.

    Examples
    --------
    >>> import torch
    >>> found = Detection(torch.tensor(0.0), torch.tensor(0.5).log())
    >>> found.mean, found.log_prob(torch.tensor([0.0, 3.0])).exp()
    (tensor(0.2500), tensor([0.7500, 0.2500]))
    """

    arg_constraints = {}

    def __init__(self, logits: Float[Tensor, "*batch"], log_factor: Tensor) -> None:
        self.logits = logits
        self.log_factor = log_factor
        shape = torch.broadcast_shapes(logits.shape, log_factor.shape)
        super().__init__(shape, validate_args=False)

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """Probability that a region is detected."""
        return (functional.logsigmoid(self.logits) + self.log_factor).exp()

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Probability of detection for "mu", of accessibility for "scale"."""
        return pick_mean(key, self.mean, self.logits.sigmoid())

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*draws"]:
        """1 for a region that is detected, else 0."""
        return torch.bernoulli(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*draws"]:
        """Log-probability of counts being above zero or not, in nats, in float32 or wider."""
        dtype = torch.promote_types(self.logits.dtype, torch.float32)
        detected = functional.logsigmoid(self.logits.to(dtype)) + self.log_factor.to(dtype)
        missed = (-torch.expm1(detected)).clamp(min=torch.finfo(dtype).tiny).log()
        return torch.where(value > 0, detected, missed)
