"""Linear layer on sparse features, with its gradients."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellvae.core.csr_batch import CSRBatch
from cellvae.core.platform.torch_adapter import count_changes
from cellvae.kernels.compiled.job_layouts import SparseLinearJob
from cellvae.kernels.openmp import choose_n_threads, run_parallel


def sparse_linear(
    features: CSRBatch,
    weight: Float[Tensor, "out genes_and_columns"],
    bias: Float[Tensor, " out"] | None = None,
    columns: Float[Tensor, "cells columns"] | None = None,
) -> Float[Tensor, "cells out"]:
    """Output of `torch.nn.functional.linear`, computed from the nonzero features alone.

    For float32 on the CPU. The features get no gradient. A weight in column-major order
    (:func:`to_gene_major`) is read where it is; any other is copied in each call.

    Parameters
    ----------
    features
        Sparse features, which the first columns of the weight belong to.
    weight, bias
        Parameters of the layer.
    columns
        Dense features that follow the sparse ones.
    """
    output: Tensor = SparseLinear.apply(*features, weight, bias, columns)
    return output


def to_gene_major(weight: Float[Tensor, "out genes"]) -> Float[Tensor, "out genes"]:
    """Copy of a weight in column-major order: the values of one gene are adjacent in memory."""
    return weight.t().contiguous().t()


class SparseLinear(torch.autograd.Function):
    """Autograd function of :func:`sparse_linear`."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        indices: Tensor,
        indptr: Tensor,
        n_genes: int,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor | None,
    ) -> Tensor:
        """Output of the layer, [cells, out]."""
        from cellvae.kernels.compiled.sparse_linear_numba import sparse_linear_kernel

        n_out, n_cells = weight.shape[0], indptr.shape[0] - 1
        bias = weight.new_zeros(n_out) if bias is None else bias.contiguous()
        output = weight.new_empty(n_cells, n_out)
        batch = CSRBatch(values, indices, indptr, n_genes)
        ctx.save_for_backward(values, indices, indptr, columns, weight)
        ctx.n_genes = n_genes
        run_sparse_linear(
            sparse_linear_kernel, batch, factor=weight.t().contiguous(), bias=bias, result=output
        )
        if columns is not None:
            output.addmm_(columns, weight[:, n_genes:].t())
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the weight, the bias and the dense columns."""
        from cellvae.kernels.compiled.sparse_linear_numba import sparse_linear_grad_weight_kernel

        values, indices, indptr, columns, weight = ctx.saved_tensors
        batch = CSRBatch(values, indices, indptr, ctx.n_genes)
        grad_weight = None
        if ctx.needs_input_grad[4]:
            # Not a view of another tensor: autograd would copy it.
            n_out = grad_output.shape[1]
            grad_weight = grad_output.new_empty_strided(weight.shape, (1, n_out))
            known = latest_transpose.find(batch)
            by_gene = CSCBatch.empty(batch) if known is None else known
            run_sparse_linear(
                sparse_linear_grad_weight_kernel,
                batch,
                factor=grad_output.contiguous(),
                bias=None,
                result=grad_weight.t(),
                by_gene=by_gene,
                is_transposed=known is not None,
            )
            latest_transpose.keep(batch, by_gene)
            if columns is not None:
                grad_weight[:, batch.n_genes :] = grad_output.t() @ columns
        grad_bias = grad_output.sum(dim=0) if ctx.needs_input_grad[5] else None
        grad_columns = None
        if columns is not None and ctx.needs_input_grad[6]:
            grad_columns = grad_output @ weight[:, batch.n_genes :]
        return None, None, None, None, grad_weight, grad_bias, grad_columns


def run_sparse_linear(
    kernel: Any,
    batch: CSRBatch,
    *,
    factor: Tensor,
    bias: Tensor | None,
    result: Tensor,
    by_gene: CSCBatch | None = None,
    is_transposed: bool = False,
) -> None:
    """Run one of the two kernels, which writes `result`; it does not depend on the threads.

    The backward kernel writes `by_gene` too, unless the features are there already.
    """
    n_threads = choose_n_threads(batch.n_cells)
    job = SparseLinearJob(
        next_item=0,
        n_cells=batch.n_cells,
        n_genes=batch.n_genes,
        n_out=result.shape[1],
        n_nonzero=batch.values.shape[0],
        n_threads=n_threads,
        is_transposed=int(is_transposed),
        gene_indptr=0 if by_gene is None else by_gene.indptr.data_ptr(),
        cells_of_genes=0 if by_gene is None else by_gene.cells.data_ptr(),
        values_of_genes=0 if by_gene is None else by_gene.values.data_ptr(),
        values=batch.values.data_ptr(),
        indices=batch.indices.data_ptr(),
        indptr=batch.indptr.data_ptr(),
        factor=factor.data_ptr(),
        bias=0 if bias is None else bias.data_ptr(),
        result=result.data_ptr(),
    )
    run_parallel(kernel, job, n_threads)


class CSCBatch(NamedTuple):
    """Features of a :class:`~cellvae.core.csr_batch.CSRBatch` gene by gene, in CSC layout."""

    indptr: Tensor
    """Start of each gene, and the end of the last one, [genes + 1]."""
    cells: Tensor
    """Cell of each value."""
    values: Tensor
    """Nonzero values, gene by gene."""

    @classmethod
    def empty(cls, batch: CSRBatch) -> CSCBatch:
        """Room for the features of a batch."""
        indptr = batch.indptr.new_empty(batch.n_genes + 1)
        return cls(indptr, torch.empty_like(batch.indices), torch.empty_like(batch.values))


class LatestTranspose:
    """Features by gene of the batch whose gradient was computed last, as long as it exists.

    Several layers may read the same features, such as the encoders of the latent and of the library
    size; to transpose them takes as long as the gradient itself.
    """

    def __init__(self) -> None:
        self.entry: tuple[Any, CSCBatch] | None = None

    def find(self, batch: CSRBatch) -> CSCBatch | None:
        """Features by gene of this batch; None if it is another one, or was changed since."""
        entry = self.entry
        if entry is None:
            return None
        (references, versions, n_genes), by_gene = entry
        known = all(
            reference() is tensor and version == count_changes(tensor)
            for reference, version, tensor in zip(references, versions, batch[:3], strict=True)
        )
        return by_gene if known and n_genes == batch.n_genes else None

    def keep(self, batch: CSRBatch, by_gene: CSCBatch) -> None:
        """Keep the features by gene, in place of those of another batch."""

        def forget(reference: Any) -> None:
            if self.entry is not None and self.entry[0][0][0] is reference:
                self.entry = None

        first, *others = batch[:3]
        references = (weakref.ref(first, forget), *map(weakref.ref, others))
        versions = tuple(map(count_changes, batch[:3]))
        self.entry = ((references, versions, batch.n_genes), by_gene)


latest_transpose = LatestTranspose()
