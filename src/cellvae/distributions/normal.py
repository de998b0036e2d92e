"""Normal distribution of values that are not counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from cellvae.distributions.protocol import pick_mean


class Normal(torch.distributions.Normal):
    """Normal distribution which keeps a normalized mean.

    Parameters
    ----------
    mu
        Mean.
    scale
        Standard deviation.
    validate_args
        Whether to check parameters and values, which on a GPU waits for it.
    normal_mu
        Normalized mean, kept for users; it takes no part in any computation.

    Examples
    --------
    >>> import torch
    >>> values = Normal(torch.tensor(2.0), torch.tensor(1.0), normal_mu=torch.tensor(0.5))
    >>> values.get_normalized("mu"), values.get_normalized("scale")
    (tensor(2.), tensor(0.5000))
    """

    def __init__(
        self,
        mu: Float[Tensor, "*#batch"],
        scale: Float[Tensor, "*#batch"],
        validate_args: bool | None = False,
        normal_mu: Float[Tensor, "*#batch"] | None = None,
    ) -> None:
        super().__init__(mu, scale, validate_args=validate_args)
        self.normal_mu = normal_mu

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> Normal:
        """Same distribution with its parameters broadcast to a larger shape."""
        shape = torch.Size(batch_shape)
        new: Normal = self._get_checked_instance(Normal, _instance)
        new.normal_mu = None if self.normal_mu is None else self.normal_mu.expand(shape)
        super().expand(shape, new)
        return new

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean for "mu", normalized mean (not the standard deviation) for "scale"."""
        return pick_mean(key, self.loc, self.normal_mu)
