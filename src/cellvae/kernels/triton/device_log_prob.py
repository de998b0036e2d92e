"""Log-probability of counts on a device, with its gradient, by one kernel."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cellvae.kernels.layers.lazy_linear import LazyLinear


def device_count_log_prob(
    counts: Float[Tensor, "cells genes"],
    logits: Float[Tensor, "cells genes"] | LazyLinear,
    log_library: Float[Tensor, "cells 1"],
    theta: Float[Tensor, " genes"] | Float[Tensor, "cells genes"] | None = None,
    dropout: Float[Tensor, "cells genes"] | LazyLinear | None = None,
) -> Float[Tensor, " cells"]:
    """Log-probability of the counts of each cell on a CUDA device, in nats, summed over genes.

    As :func:`cellvae.kernels.count_log_prob`. Nothing is read by the host, and all memory comes
    from torch, so that a CUDA graph can capture it. Two layers that read the same features are one
    product, whose constants the kernel adds.
    """
    given = [logits] if dropout is None else [logits, dropout]
    biases = [layer.bias if isinstance(layer, LazyLinear) else None for layer in given]
    log_prob: Tensor = DeviceCountLogProb.apply(
        torch.is_grad_enabled(),
        counts.contiguous(),
        concat_outputs(given),
        biases[0],
        biases[1] if len(biases) == 2 else None,
        log_library,
        theta,
        dropout is not None,
    )
    return log_prob


def concat_outputs(layers: list[Tensor | LazyLinear]) -> Float[Tensor, "cells all_outputs"]:
    """Outputs of layers without their biases, one after the other."""
    if len(layers) == 2 and all(isinstance(layer, LazyLinear) for layer in layers):
        features = [layer.features for layer in layers if isinstance(layer, LazyLinear)]
        weights = [layer.weight for layer in layers if isinstance(layer, LazyLinear)]
        if features[0] is features[1]:
            return functional.linear(features[0], torch.cat(weights))
    outputs = [
        functional.linear(layer.features, layer.weight) if isinstance(layer, LazyLinear) else layer
        for layer in layers
    ]
    return outputs[0].contiguous() if len(outputs) == 1 else torch.cat(outputs, dim=1)


class DeviceCountLogProb(torch.autograd.Function):
    """Autograd function of :func:`device_count_log_prob`; its forward pass saves the derivatives.

    The derivatives of a cell by logits, dropout and theta are one row of a matrix, so that the sums
    over cells of all three are one product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad_enabled: bool,
        counts: Tensor,
        heads: Tensor,
        logits_bias: Tensor | None,
        dropout_bias: Tensor | None,
        log_library: Tensor,
        theta: Tensor | None,
        inflated: bool,
    ) -> Tensor:
        """Log-probability, in nats; derivatives only if there may be a backward pass."""
        from cellvae.kernels.triton.operator import run_kernel

        need_grad = grad_enabled and any(ctx.needs_input_grad)
        n_cells, n_genes = counts.shape
        n_parts = 1 + inflated + (theta is not None)
        log_prob, grad_log_library = heads.new_empty(n_cells), heads.new_empty(n_cells)
        gradients = heads.new_empty(n_cells, n_parts * n_genes if need_grad else 0)
        run_kernel(
            counts,
            heads,
            logits_bias,
            dropout_bias,
            log_library.reshape(-1),
            None if theta is None else theta.contiguous(),
            inflated,
            log_prob,
            grad_log_library,
            gradients,
        )
        ctx.save_for_backward(grad_log_library, gradients)
        ctx.n_genes, ctx.n_heads = n_genes, 1 + inflated
        ctx.theta_per_cell = theta is not None and theta.ndim == 2
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of heads, biases, library sizes and inverse dispersion."""
        grad_log_library, gradients = ctx.saved_tensors
        _, _, of_heads, *of_biases, of_library, of_theta, _ = ctx.needs_input_grad
        end = ctx.n_heads * ctx.n_genes
        column = grad_output.unsqueeze(-1)
        grad_heads = gradients[:, :end] * column if of_heads else None
        grad_biases: list[Tensor | None] = [None, None]
        grad_theta = None
        if any(of_biases) or (of_theta and not ctx.theta_per_cell):
            sums = (grad_output @ gradients).split(ctx.n_genes)
            grad_biases = [sums[i] if needed else None for i, needed in enumerate(of_biases)]
            grad_theta = sums[-1] if of_theta else None
        if of_theta and ctx.theta_per_cell:
            grad_theta = gradients[:, end:] * column
        grad_library = grad_log_library.unsqueeze(-1) * column if of_library else None
        return None, None, grad_heads, *grad_biases, grad_library, grad_theta, None
