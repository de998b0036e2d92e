"""Adapter of names of torch that are not public: the only place where they are used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

NORM_AND_DROPOUT = (_BatchNorm, _DropoutNd)
"""Base classes of all BatchNorm and all Dropout layers."""


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, [tensors], in a few kernels for all of them."""
    return torch.stack(torch._foreach_norm(list(tensors)))


def is_not_finite(values: Tensor) -> Tensor:
    """Whether each value is infinite or NaN, in two operations; `torch.isfinite` takes four."""
    return (values - values) != 0


def lerp_all_(tensors: Sequence[Tensor], targets: Sequence[Tensor], fraction: float) -> None:
    """Move all tensors towards their targets by a fraction of the distance, in place."""
    torch._foreach_lerp_(list(tensors), list(targets), fraction)


def copy_all_(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into all tensors, in place."""
    torch._foreach_copy_(list(tensors), list(values))


def has_hooks(layer: nn.Module) -> bool:
    """Whether hooks run when a layer is called."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def count_changes(tensor: Tensor) -> int:
    """Number of times that the values of a tensor were changed in place."""
    return tensor._version


def note_changes(tensors: Sequence[Tensor]) -> None:
    """Tell autograd that the values of tensors were changed in place by code outside torch."""
    torch.autograd.graph.increment_version(tensors)
