"""Linear layer that reads sparse features as they are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import sparse_linear, to_gene_major


class SparseInputLinear(nn.Linear):
    """Linear layer of features that may be :class:`~cellvae.core.csr_batch.Entries`."""

    def forward(
        self, features: Float[Tensor, "*cells features"] | CSRBatch
    ) -> Float[Tensor, "*cells out"]:
        """Linear combinations of the features of each cell."""
        if isinstance(features, CSRBatch):
            return sparse_linear(features, self.weight, self.bias)
        return super().forward(features)

    def to_column_major(self) -> None:
        """Keep the weights of one feature together in memory; not one of them changes."""
        self.weight.data = to_gene_major(self.weight.data)
