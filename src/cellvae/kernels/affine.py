"""Affine map of features that is left to whoever needs its result."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


class Affine(NamedTuple):
    """What a linear layer gives for some features, not computed yet.

    A function that computes it by itself saves passes over a large result.
    """

    features: Float[Tensor, "cells features"]
    weight: Float[Tensor, "out features"]
    constant: Float[Tensor, " out"]

    def computed(self) -> Float[Tensor, "cells out"]:
        """Result of the layer."""
        return functional.linear(*self)


def computed(given: Tensor | Affine) -> Tensor:
    """Result of a map, if it has not been computed yet."""
    return given.computed() if isinstance(given, Affine) else given
