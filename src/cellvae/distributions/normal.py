"""Normal distribution of values that are not counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.distributions.normalized import choose_normalized


class Normal(torch.distributions.Normal):
    """Normal distribution which keeps a normalized mean.

    Parameters
    ----------
    loc
        Mean.
    scale
        Standard deviation.
    normal_mu
        Normalized mean, kept for users; it takes no part in any computation.
    validate_args
        Whether to check parameters and values, which on a GPU waits for it.

    Examples
    --------
    >>> import torch
    >>> values = Normal(torch.tensor(2.0), torch.tensor(1.0), normal_mu=torch.tensor(0.5))
    >>> values.get_normalized("mu"), values.get_normalized("scale")
    (tensor(2.), tensor(0.5000))
    """

    def __init__(
        self,
        loc: Float[Tensor, "*#batch"],
        scale: Float[Tensor, "*#batch"],
        normal_mu: Float[Tensor, "*#batch"] | None = None,
        validate_args: bool | None = False,
    ) -> None:
        super().__init__(loc, scale, validate_args=validate_args)
        self.normal_mu = normal_mu

    def expand(self, batch_shape: Sequence[int], _instance: Self | None = None) -> Self:
        """Same distribution with its parameters broadcast to a larger shape."""
        shape = torch.Size(batch_shape)
        new = self._get_checked_instance(Normal, _instance)
        new.normal_mu = None if self.normal_mu is None else self.normal_mu.expand(shape)
        return super().expand(shape, new)

    def get_normalized(self, key: str) -> Float[Tensor, "*batch"]:
        """Mean for "mu", normalized mean (not the standard deviation) for "scale"."""
        return choose_normalized(key, self.loc, self.normal_mu)
