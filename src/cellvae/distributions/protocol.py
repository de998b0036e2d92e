"""Interface of the distributions of counts, with their means by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from cellvae.errors import InvalidOptionError, did_you_mean


@runtime_checkable
class CountDistribution(Protocol):
    """Interface of every distribution of this folder."""

    @property
    def mean(self) -> Tensor:
        """Mean, including zero inflation."""
        ...

    def get_normalized(self, key: str) -> Tensor:
        """Mean of the counts for "mu", normalized mean for "scale"."""
        ...

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Random counts."""
        ...

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of counts, in nats."""
        ...


def pick_mean(
    key: str, mu: Float[Tensor, "*batch"], scale: Float[Tensor, "*#batch"] | None
) -> Float[Tensor, "*#batch"]:
    """Mean ("mu") or normalized mean ("scale").

    Raises
    ------
    InvalidOptionError
        If the key is another string, or the distribution has no normalized mean.
    """
    if key == "mu":
        return mu
    if key != "scale":
        hint = did_you_mean(key, ("mu", "scale"))
        raise InvalidOptionError(f"Expected the key 'mu' or 'scale'; got {key!r}.{hint}")
    if scale is None:
        raise InvalidOptionError(
            "Expected a distribution with a normalized mean; this one was made without. "
            "Pass the normalized mean to its constructor, or request 'mu'."
        )
    return scale
