"""Counts of a batch of cells by their entries: what is not zero, and where."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class CSRBatch(NamedTuple):
    """Sparse counts, or what was made of them one by one, [cells, genes].

    The genes of a cell are in order, each at most once. For modules that say `accepts_sparse`.
    """

    values: Float[Tensor, " entries"]
    """What is not zero, cell by cell."""
    indices: Int[Tensor, " entries"]
    """Gene of each value, of 32 bits."""
    indptr: Int[Tensor, " cells_and_one"]
    """Where each cell begins, and where the last one ends, of 64 bits."""
    n_genes: int

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    def sum_by_cell(self) -> Float[Tensor, "cells 1"]:
        """Sum of each cell."""
        return torch.segment_reduce(self.values, "sum", offsets=self.indptr).unsqueeze(-1)

    def slice_cells(self, start: int, end: int) -> CSRBatch:
        """Cells from `start` to before `end`; nothing is copied but where they begin."""
        first, beyond = int(self.indptr[start]), int(self.indptr[end])
        return CSRBatch(
            self.values[first:beyond],
            self.indices[first:beyond],
            self.indptr[start : end + 1] - first,
            self.n_genes,
        )

    def to_dense(self) -> Float[Tensor, "cells genes"]:
        """All values, zeros too."""
        # The number of entries is known here: no device is asked for it.
        cells = torch.arange(self.n_cells, device=self.values.device).repeat_interleave(
            self.indptr.diff(), output_size=len(self.values)
        )
        out = self.values.new_zeros(self.n_cells, self.n_genes)
        return out.index_put_((cells, self.indices.long()), self.values)
