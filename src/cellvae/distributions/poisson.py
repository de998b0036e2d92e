"""Poisson distribution of counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from cellvae.distributions.functional.log_prob import PoissonLogProb
from cellvae.distributions.protocol import pick_mean


class Poisson(torch.distributions.Poisson):
    """Poisson distribution that stores a normalized mean and is accurate at large counts.

    Parameters
    ----------
    rate
        Mean and variance, in counts.
    validate_args
        Whether to check parameters and counts; on a GPU this waits for the device.
    scale
        Normalized mean, for example the fraction of the counts of a cell that a gene has. It is
        stored for users and not used in any computation.

    Examples
    --------
    >>> import torch
    >>> Poisson(torch.tensor(2.0)).log_prob(torch.tensor(0.0))
    tensor(-2.)
    """

    def __init__(
        self,
        rate: Float[Tensor, "*batch"],
        validate_args: bool | None = False,
        scale: Float[Tensor, "*#batch"] | None = None,
    ) -> None:
        super().__init__(rate, validate_args=validate_args)
        self.scale = scale

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Poisson:
        """Same distribution with its parameters broadcast to a larger shape."""
        new: Poisson = self._get_checked_instance(Poisson, _instance)
        new.scale = None if self.scale is None else self.scale.expand(torch.Size(batch_shape))
        super().expand(torch.Size(batch_shape), new)
        return new

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean of the counts for "mu", normalized mean for "scale"."""
        return pick_mean(key, self.rate, self.scale)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*draws"]:
        """Log-probability of counts, in nats, in float32 or wider."""
        if self._validate_args:
            self._validate_sample(value)
        dtype = torch.promote_types(self.rate.dtype, torch.float32)
        log_prob: Tensor = PoissonLogProb.apply(value.to(dtype), self.rate.to(dtype))
        return log_prob
