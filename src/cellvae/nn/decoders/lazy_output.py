"""Last layer of a decoder, whose result is larger than all others together."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cellvae.kernels import LazyLinear


def lazy_linear(
    layer: nn.Module, features: Float[Tensor, "*samples cells features"]
) -> Float[Tensor, "*samples cells out"] | LazyLinear:
    """Result of a layer, not computed yet where that is left to nobody who watches the layer."""
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    if type(layer) is not nn.Linear or watched or layer._backward_pre_hooks:
        result: Tensor = layer(features)
        return result
    return LazyLinear(features, layer.weight, layer.bias)
