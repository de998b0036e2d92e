"""Affine map of features that is left to whoever needs its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


class LazyLinear(NamedTuple):
    """What a linear layer gives for some features, not computed yet.

    A function that computes it by itself saves passes over a large result.
    """

    features: Float[Tensor, "cells features"]
    weight: Float[Tensor, "out features"]
    bias: Float[Tensor, " out"]

    def materialize(self) -> Float[Tensor, "cells out"]:
        """Result of the layer."""
        return functional.linear(*self)


def materialize(given: Tensor | LazyLinear) -> Tensor:
    """Result of a map, if it has not been computed yet."""
    return given.materialize() if isinstance(given, LazyLinear) else given


def unpack_lazy_linear(
    given: Tensor | LazyLinear | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Features, weight and constant of a layer, or its result alone."""
    if isinstance(given, LazyLinear):
        return given.features, given.weight, given.bias
    return given, None, None


def lazy_linear_backward(
    slopes: Float[Tensor, "cells out"],
    features: Float[Tensor, "cells features"],
    weight: Float[Tensor, "out features"] | None,
    cell_weight: Float[Tensor, "cells 1"],
    grad_bias: Float[Tensor, " out"],
    *,
    needs_grad: Sequence[bool],
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
    grad_bias
        Sums of the derivatives over the cells, with these factors.
    needed
        Which gradients are asked for.
    """
    if weight is None:
        return slopes * cell_weight if needs_grad[0] else None, None, None
    return (
        (slopes @ weight).mul_(cell_weight) if needs_grad[0] else None,
        slopes.t() @ (features * cell_weight) if needs_grad[1] else None,
        grad_bias if needs_grad[2] else None,
    )


def weighted_sums(
    sums: Tensor, grad: Float[Tensor, " cells"], recompute: Callable[[Tensor], Tensor]
) -> Tensor:
    """Sums over cells, each of which counts as its gradient says.

    Parameters
    ----------
    sums
        Sums in which each cell counts one.
    grad
        Gradient of each cell; the same for all in most losses.
    recompute
        Makes the sums, given what each cell counts.
    """
    alike = bool((grad == grad[0]).all())
    return sums * grad[0] if alike else recompute(grad.contiguous())


def matmul_without_bias(given: Tensor, weight: Tensor | None) -> Tensor:
    """Result of a layer without its constant, or what was given for it."""
    return given.contiguous() if weight is None else given @ weight.t()


def empty_grad(result: Tensor, weight: Tensor | None) -> Tensor:
    """Memory for the derivatives by the result of a layer."""
    return torch.empty_like(result) if weight is None else result
