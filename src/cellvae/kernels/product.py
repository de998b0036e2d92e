"""Product of sparse features with the weights of a layer, with its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.entries import Entries


def sparse_product(
    features: Entries,
    weight: Float[Tensor, "out genes"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "cells out"]:
    """The same as `linear` of the dense features, from what is not zero alone.

    On the CPU, in single precision. The features have no derivatives. Weights whose values for one
    gene lie together (:func:`gene_by_gene`) are read as they are, others are copied every time.
    """
    product: Tensor = SparseProduct.apply(*features, weight, bias)
    return product


def gene_by_gene(weight: Float[Tensor, "out genes"]) -> Float[Tensor, "out genes"]:
    """Weights whose values for one gene lie together in memory."""
    return weight.t().contiguous().t()


class SparseProduct(torch.autograd.Function):
    """Product of sparse features with weights."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        genes: Tensor,
        starts: Tensor,
        n_genes: int,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Sums over the genes of each cell."""
        from cellvae.kernels.entries import multiply

        n_out, n_cells = weight.shape[0], len(starts) - 1
        constant = weight.new_zeros(n_out) if bias is None else bias.contiguous()
        out = weight.new_empty(n_cells, n_out)
        ctx.save_for_backward(values, genes, starts)
        ctx.n_genes = n_genes
        compute(multiply, values, genes, starts, n_genes, weight.t().contiguous(), constant, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives by the weights and the constant."""
        from cellvae.kernels.entries import differentiate

        values, genes, starts = ctx.saved_tensors
        by_weight = None
        if ctx.needs_input_grad[4]:
            # No view of another tensor: autograd would copy that.
            n_out, n_genes = grad.shape[1], ctx.n_genes
            by_weight = grad.new_empty_strided((n_out, n_genes), (1, n_out))
            given = grad.contiguous()
            compute(differentiate, values, genes, starts, n_genes, given, None, by_weight.t())
        by_bias = grad.sum(dim=0) if ctx.needs_input_grad[5] else None
        return None, None, None, None, by_weight, by_bias


def compute(
    work: Any,
    values: Tensor,
    genes: Tensor,
    starts: Tensor,
    n_genes: int,
    given: Tensor,
    constant: Tensor | None,
    out: Tensor,
) -> None:
    """Fill the results in, by as many threads as torch has; they do not depend on their number."""
    from cellvae.kernels.team import n_threads_for, share_out

    n_cells = len(starts) - 1
    addresses = [t.data_ptr() for t in (values, genes, starts, given)]
    addresses += [0 if constant is None else constant.data_ptr(), out.data_ptr()]
    sizes = [0, n_cells, n_genes, out.shape[1], len(values), 0]
    job = np.array([*sizes, *addresses, n_threads_for(n_cells)], dtype=np.int64)
    job[5] = job.ctypes.data
    share_out(work, job, n_cells)
