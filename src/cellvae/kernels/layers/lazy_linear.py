"""Output of a linear layer that is computed only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cellvae.core.platform.torch_adapter import has_hooks

MAX_BATCHED_THREADS = 2
"""Threads up to which the products of two layers with the same features are one batched product.

MKL gives each product of a batch to one thread, so that further threads would wait."""


class LazyLinear(NamedTuple):
    """Output of a linear layer, not computed yet: its input, weight and bias.

    A function that computes the output itself saves passes over a large array.
    """

    features: Float[Tensor, "cells features"]
    weight: Float[Tensor, "out features"]
    bias: Float[Tensor, " out"]

    def materialize(self) -> Float[Tensor, "cells out"]:
        """Compute the output of the layer."""
        return functional.linear(*self)


def lazy_linear(
    layer: nn.Module, features: Float[Tensor, "*samples cells features"]
) -> Float[Tensor, "*samples cells out"] | LazyLinear:
    """Output of a linear layer, lazy unless the layer has hooks or is not a plain `nn.Linear`.

    Hooks, parametrizations and adapters (LoRA) expect the layer to be called.
    """
    if type(layer) is not nn.Linear or has_hooks(layer):
        output: Tensor = layer(features)
        return output
    return LazyLinear(features, layer.weight, layer.bias)


def materialize(output: Tensor | LazyLinear) -> Tensor:
    """Output of a linear layer as a tensor, computed if it is lazy."""
    return output.materialize() if isinstance(output, LazyLinear) else output


def unpack_lazy_linear(
    output: Tensor | LazyLinear | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Features, weight and bias of a lazy output; a tensor (or None) is followed by two None."""
    if isinstance(output, LazyLinear):
        return output.features, output.weight, output.bias
    return output, None, None


def lazy_linear_backward(
    grad_output: Float[Tensor, "cells out"],
    features: Float[Tensor, "cells features"],
    weight: Float[Tensor, "out features"] | None,
    cell_weight: Float[Tensor, "cells 1"],
    grad_bias: Float[Tensor, " out"],
    *,
    needs_grad: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the features, weight and bias of a lazy output, or of a tensor in its place.

    The per-cell weight is multiplied into the smaller operand of each matrix product.

    Parameters
    ----------
    grad_output
        Gradients of the output of the layer, without the weights of the cells.
    features, weight
        Input and weight of the layer; the output itself and None if it was not lazy.
    cell_weight
        Weight of each cell: the gradient of its log-probability.
    grad_bias
        Gradient of the bias, with the weights of the cells.
    needs_grad
        Which of the three gradients are needed.
    """
    if weight is None:
        return grad_output * cell_weight if needs_grad[0] else None, None, None
    return (
        (grad_output @ weight).mul_(cell_weight) if needs_grad[0] else None,
        grad_output.t() @ (features * cell_weight) if needs_grad[1] else None,
        grad_bias if needs_grad[2] else None,
    )


def stack_weights(first: nn.Linear, second: nn.Linear) -> None:
    """Store the weights of two layers of one shape one after the other, for :func:`find_stack`.

    Their values do not change.
    """
    if (
        first.weight.shape == second.weight.shape
        and find_stack(first.weight, second.weight) is None
    ):
        both = torch.stack([first.weight.data, second.weight.data])
        first.weight.data, second.weight.data = both[0], both[1]


def find_stack(
    first: Float[Tensor, "*shape"] | None, second: Float[Tensor, "*shape"] | None
) -> Float[Tensor, "2 ..."] | None:
    """Two tensors as one, if they are adjacent in memory; otherwise None."""
    if first is None or second is None or first.shape != second.shape:
        return None
    if second.data_ptr() != first.data_ptr() + first.numel() * first.element_size():
        return None
    same = first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    if not (same and first.is_contiguous() and second.is_contiguous()):
        return None
    return first.as_strided((2, *first.shape), (first.numel(), *first.stride()))


def weighted_sums(
    sums: Tensor, cell_weight: Float[Tensor, " cells"], recompute: Callable[[Tensor], Tensor]
) -> Tensor:
    """Sums over cells in which each cell has a weight, from the sums without weights.

    Parameters
    ----------
    sums
        Sums without weights.
    cell_weight
        Weight of each cell; the same for all of them with most losses.
    recompute
        Computes the sums for given weights; called only if these differ between cells.
    """
    weights = cell_weight.numpy()
    equal = bool((weights == weights[0]).all())
    return sums * cell_weight[0] if equal else recompute(cell_weight.contiguous())


def matmul_without_bias(features: Tensor, weight: Tensor | None) -> Tensor:
    """Output of a layer without its bias; `features` is the output itself if there is no weight."""
    return features.contiguous() if weight is None else features @ weight.t()


def empty_grad(output: Tensor, weight: Tensor | None) -> Tensor:
    """Memory for the gradient of an output: that of the output, if it was computed here."""
    return torch.empty_like(output) if weight is None else output
