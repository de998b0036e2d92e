"""Affine map of features that is left to whoever needs its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    slopes: Float[Tensor, "cells out"],
    features: Float[Tensor, "cells features"],
    weight: Float[Tensor, "out features"] | None,
    of_cells: Float[Tensor, "cells 1"],
    by_constant: Float[Tensor, " out"],
    *,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the features, weight and constant of a layer, or of its result alone.

    The factor of each cell goes to the smaller part of a product.

    Parameters
    ----------
    slopes
        Derivatives by the result of the layer.
    features, weight
        What the layer reads, and its weight; its result and None where that was given.
    of_cells
        Factor of each cell.
    by_constant
        Sums of the derivatives over the cells, with these factors.
    needed
        Which gradients are asked for.
    """
    if weight is None:
        return slopes * of_cells if needed[0] else None, None, None
    return (
        (slopes @ weight).mul_(of_cells) if needed[0] else None,
        slopes.t() @ (features * of_cells) if needed[1] else None,
        by_constant if needed[2] else None,
    )


def weighed(
    sums: Tensor, grad: Float[Tensor, " cells"], make_again: Callable[[Tensor], Tensor]
) -> Tensor:
    """Sums over cells, each of which counts as its gradient says.

    Parameters
    ----------
    sums
        Sums in which each cell counts one.
    grad
        Gradient of each cell; the same for all in most losses.
    make_again
        Makes the sums, given what each cell counts.
    """
    alike = bool((grad == grad[0]).all())
    return sums * grad[0] if alike else make_again(grad.contiguous())


def layer_result(given: Tensor, weight: Tensor | None) -> Tensor:
    """Result of a layer without its constant, or what was given for it."""
    return given.contiguous() if weight is None else given @ weight.t()


def place_for(result: Tensor, weight: Tensor | None) -> Tensor:
    """Memory for the derivatives by the result of a layer."""
    return torch.empty_like(result) if weight is None else result
