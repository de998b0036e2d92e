"""Affine map of features that is left to whoever needs its result."""

from __future__ import annotations

from typing import NamedTuple

import torch
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


def parts(given: Tensor | Affine | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Features, weight and constant of a layer, or its result alone."""
    if isinstance(given, Affine):
        return given.features, given.weight, given.constant
    return given, None, None


def layer_gradients(
    slopes: Tensor, given: Tensor, weight: Tensor | None, of_cells: Tensor, by_constant: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the features, weight and constant of a layer, or of its result alone.

    The factor of each cell goes to the smaller part of a product.
    """
    if weight is None:
        return slopes * of_cells, None, None
    return (slopes @ weight).mul_(of_cells), slopes.t() @ (given * of_cells), by_constant


def layer_result(given: Tensor, weight: Tensor | None) -> Tensor:
    """Result of a layer without its constant, or what was given for it."""
    return given.contiguous() if weight is None else given @ weight.t()


def place_for(result: Tensor, weight: Tensor | None) -> Tensor:
    """Memory for the derivatives by the result of a layer."""
    return torch.empty_like(result) if weight is None else result
