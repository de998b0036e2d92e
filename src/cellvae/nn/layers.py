"""Layers that differ from those of torch: for one cell in a batch, and for sparse input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import sparse_linear, to_gene_major


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
