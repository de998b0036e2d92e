"""Product of sparse features with the weights of a layer, with its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.core.csr_batch import CSRBatch


def sparse_linear(
    features: CSRBatch,
    weight: Float[Tensor, "out genes"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "cells out"]:
    """The same as `linear` of the dense features, from what is not zero alone.

    On the CPU, in single precision. The features have no derivatives. Weights whose values for one
    gene lie together (:func:`to_gene_major`) are read as they are, others are copied every time.
    """
    product: Tensor = SparseLinear.apply(*features, weight, bias)
    return product


def to_gene_major(weight: Float[Tensor, "out genes"]) -> Float[Tensor, "out genes"]:
    """Weights whose values for one gene lie together in memory."""
    return weight.t().contiguous().t()


class SparseLinear(torch.autograd.Function):
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
        from cellvae.kernels.compiled.sparse_linear_numba import forward_kernel

        n_out, n_cells = weight.shape[0], len(starts) - 1
        constant = weight.new_zeros(n_out) if bias is None else bias.contiguous()
        out = weight.new_empty(n_cells, n_out)
        ctx.save_for_backward(values, genes, starts)
        ctx.n_genes = n_genes
        run_kernel(
            forward_kernel, values, genes, starts, n_genes, weight.t().contiguous(), constant, out
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives by the weights and the constant."""
        from cellvae.kernels.compiled.sparse_linear_numba import backward_kernel

        values, genes, starts = ctx.saved_tensors
        by_weight = None
        if ctx.needs_input_grad[4]:
            # No view of another tensor: autograd would copy that.
            n_out, n_genes = grad.shape[1], ctx.n_genes
            by_weight = grad.new_empty_strided((n_out, n_genes), (1, n_out))
            given = grad.contiguous()
            run_kernel(backward_kernel, values, genes, starts, n_genes, given, None, by_weight.t())
        by_bias = grad.sum(dim=0) if ctx.needs_input_grad[5] else None
        return None, None, None, None, by_weight, by_bias


def run_kernel(
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
    from cellvae.kernels.openmp import choose_n_threads, run_parallel

    n_cells = len(starts) - 1
    addresses = [t.data_ptr() for t in (values, genes, starts, given)]
    addresses += [0 if constant is None else constant.data_ptr(), out.data_ptr()]
    sizes = [0, n_cells, n_genes, out.shape[1], len(values), 0]
    job = np.array([*sizes, *addresses, choose_n_threads(n_cells)], dtype=np.int64)
    job[5] = job.ctypes.data
    run_parallel(work, job, n_cells)
