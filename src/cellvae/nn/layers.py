"""Layers that differ from those of torch: for one cell in a batch, and for sparse input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.torch_adapter import has_hooks
from cellvae.kernels import (
    Kernel,
    LazyLinear,
    batch_norm_relu_dropout,
    can_fuse_layers,
    layer_norm_activation_dropout,
    sparse_linear,
    to_gene_major,
)
from cellvae.kernels.dispatch import can_compile


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that normalises a batch of one cell with its running statistics.

    The variance of one cell is undefined, so torch raises an error for such a batch in training.
    Here it is normalised as in eval mode (it may be the only labelled cell of a step), and the
    running statistics are not updated. Larger batches, parameter names and the state dict are those
    of torch.
    """

    def forward(self, input: Float[Tensor, "cells features"]) -> Float[Tensor, "cells features"]:
        """Normalised features."""
        if not self.training or len(input) != 1 or self.running_mean is None:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class SparseInputLinear(nn.Linear):
    """`torch.nn.Linear` whose input may be a :class:`~cellvae.core.csr_batch.CSRBatch`."""

    def forward(
        self,
        features: Float[Tensor, "*cells features"] | CSRBatch,
        columns: Float[Tensor, "cells columns"] | None = None,
    ) -> Float[Tensor, "*cells out"]:
        """Output of the layer; `columns` are dense features that follow sparse ones."""
        if isinstance(features, CSRBatch):
            return sparse_linear(features, self.weight, self.bias, columns)
        return super().forward(features)

    def to_column_major(self) -> None:
        """Store the weight in column-major order, which :func:`sparse_linear` reads fastest.

        Its values do not change.
        """
        self.weight.data = to_gene_major(self.weight.data)


MAX_LAZY_INPUTS = 64
"""Inputs of a linear layer up to which a kernel computes it together with what follows."""
N_MODULES = 5
"""Number of modules of a fully connected layer."""


def lazy_output(
    layer: nn.Module, features: Float[Tensor, "cells features"] | CSRBatch
) -> LazyLinear | None:
    """Output of a layer with few inputs, which a kernel computes together with what follows.

    None if the layer has many inputs, or a kernel does not support it here.
    """
    if not isinstance(features, Tensor) or features.shape[-1] > MAX_LAZY_INPUTS:
        return None
    if type(layer) is not nn.Linear and type(layer) is not SparseInputLinear:
        return None
    if has_hooks(layer) or layer.bias is None or layer.weight.dtype != features.dtype:
        return None
    if not can_fuse_layers(features, layer.out_features):
        return None
    return LazyLinear(features, layer.weight, layer.bias)


class FCLayer(nn.Sequential):
    """One fully connected layer: linear, batch norm, layer norm, activation, dropout.

    What follows the linear map runs as one kernel in training, where that is one of the usual
    sequences: batch norm, ReLU and dropout (:func:`~cellvae.kernels.batch_norm_relu_dropout`, which
    computes a linear map with few inputs too), or layer norm, any activation of :class:`FCLayers`,
    and dropout (:func:`~cellvae.kernels.layer_norm_activation_dropout`). Other modules, modules
    with hooks, and frozen statistics are called one after the other.
    """

    def forward(
        self,
        input: Float[Tensor, "cells features"] | CSRBatch,
        columns: Float[Tensor, "cells columns"] | None = None,
    ) -> Float[Tensor, "cells out"]:
        """Output of the layer; `columns` are dense features that follow sparse ones."""
        linear, *following = self
        lazy = lazy_output(linear, input) if self.training and columns is None else None
        if lazy is not None:
            kernel = self.find_kernel(lazy.bias.shape)
            if kernel == "batch_norm_relu_dropout" and can_compile(kernel):
                return self.run_kernel(lazy, kernel)
        hidden: Tensor = linear(input) if columns is None else linear(input, columns)
        fusible = self.training and can_fuse_layers(hidden, hidden.shape[-1])
        kernel = self.find_kernel(hidden.shape[1:]) if fusible else None
        if kernel is not None and can_compile(kernel):
            return self.run_kernel(hidden, kernel)
        for module in following:
            hidden = module(hidden)
        return hidden

    def find_kernel(self, shape: tuple[int, ...]) -> Kernel | None:
        """Name of the kernel that computes the same as the modules after the linear map, if any.

        `shape` is that of the output of one cell.
        """
        if len(self) != N_MODULES:
            return None
        _, norm, layer_norm, activation, dropout = self
        if any(has_hooks(part) for part in (norm, layer_norm, activation, dropout)):
            return None
        if not (type(dropout) is nn.Identity or (type(dropout) is nn.Dropout and dropout.p < 1)):
            return None
        if (
            type(norm) is BatchNorm
            and norm.training
            and norm.affine
            and norm.momentum is not None
            and norm.running_mean is not None
            and type(layer_norm) is nn.Identity
            and type(activation) is nn.ReLU
        ):
            return "batch_norm_relu_dropout"
        if (
            type(norm) is nn.Identity
            and type(layer_norm) is nn.LayerNorm
            and not layer_norm.elementwise_affine
            and layer_norm.normalized_shape == shape
            and type(activation) in (nn.ReLU, nn.LeakyReLU, nn.Identity)
        ):
            return "layer_norm_activation_dropout"
        return None

    def run_kernel(
        self, hidden: Float[Tensor, "cells out"] | LazyLinear, kernel: Kernel
    ) -> Float[Tensor, "cells out"]:
        """Output of the modules that follow the linear map, by the kernel of this name."""
        _, norm, layer_norm, activation, dropout = self
        rate = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        if kernel == "layer_norm_activation_dropout":
            assert isinstance(layer_norm, nn.LayerNorm) and isinstance(hidden, Tensor)
            slope = 1.0 if isinstance(activation, nn.Identity) else 0.0
            if isinstance(activation, nn.LeakyReLU):
                slope = activation.negative_slope
            return layer_norm_activation_dropout(
                hidden, eps=layer_norm.eps, negative_slope=slope, dropout_rate=rate
            )
        assert isinstance(norm, BatchNorm) and norm.num_batches_tracked is not None
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.momentum is not None
        norm.num_batches_tracked.add_(1)
        return batch_norm_relu_dropout(
            hidden,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            momentum=norm.momentum,
            eps=norm.eps,
            dropout_rate=rate,
        )
