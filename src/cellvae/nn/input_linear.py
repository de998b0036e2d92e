"""Linear layer that reads sparse features as they are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from cellvae.entries import Entries
from cellvae.kernels import gene_by_gene, sparse_product


class InputLinear(nn.Linear):
    """Linear layer of features that may be :class:`~cellvae.entries.Entries`."""

    def forward(
        self, features: Float[Tensor, "*cells features"] | Entries
    ) -> Float[Tensor, "*cells out"]:
        """Linear combinations of the features of each cell."""
        if isinstance(features, Entries):
            return sparse_product(features, self.weight, self.bias)
        return super().forward(features)

    def lay_out(self) -> None:
        """Keep the weights of one feature together in memory; not one of them changes."""
        self.weight.data = gene_by_gene(self.weight.data)
