"""Sparse counts of a batch of cells, in CSR layout."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor


class CSRBatch(NamedTuple):
    """Sparse counts or a function of them by element, [cells, genes], in CSR layout.

    The indices of a cell are sorted and unique. Modules with `accepts_sparse` are given these.
    """

    values: Float[Tensor, " entries"]
    """Nonzero values, cell by cell."""
    indices: Int[Tensor, " entries"]
    """Gene index of each value, int32."""
    indptr: Int[Tensor, " cells_and_one"]
    """Start of each cell in `values`, and the end of the last one, int64."""
    n_genes: int

    @classmethod
    def from_numpy(
        cls, data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], n_genes: int
    ) -> CSRBatch:
        """Counts in the arrays of a CSR matrix; an array is copied if its type is another.

        Parameters
        ----------
        data, indices, indptr
            Arrays of a `scipy.sparse.csr_matrix`, whose indices are sorted and unique.
        n_genes
            Number of genes.
        """
        return cls(
            torch.from_numpy(data.astype(np.float32, copy=False)),
            torch.from_numpy(indices.astype(np.int32, copy=False)),
            torch.from_numpy(indptr.astype(np.int64, copy=False)),
            n_genes,
        )

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.indptr.shape[0] - 1

    def sum_by_cell(self) -> Float[Tensor, "cells 1"]:
        """Sum of the values of each cell."""
        return torch.segment_reduce(self.values, "sum", offsets=self.indptr).unsqueeze(-1)

    def slice_cells(self, start: int, end: int) -> CSRBatch:
        """Cells from `start` to before `end`; only `indptr` is copied."""
        first, last = int(self.indptr[start]), int(self.indptr[end])
        return CSRBatch(
            self.values[first:last],
            self.indices[first:last],
            self.indptr[start : end + 1] - first,
            self.n_genes,
        )

    def take_cells(self, cells: Int[Tensor, " chosen"]) -> CSRBatch:
        """Cells at these indices, in this order; indices may repeat.

        Values are not copied if only empty cells are left out.
        """
        starts, lengths = self.indptr[cells], self.indptr.diff()[cells]
        indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        shifts = starts - indptr[:-1]
        n_values = int(indptr[-1])
        if n_values == len(self.values) and not shifts.any():
            return self._replace(indptr=indptr)
        shifts = shifts.repeat_interleave(lengths, output_size=n_values)
        entries = torch.arange(n_values, device=shifts.device) + shifts
        return CSRBatch(self.values[entries], self.indices[entries], indptr, self.n_genes)

    def to_dense(self) -> Float[Tensor, "cells genes"]:
        """Dense counts."""
        # `output_size` avoids a synchronisation with the device.
        cells = torch.arange(self.n_cells, device=self.values.device).repeat_interleave(
            self.indptr.diff(), output_size=len(self.values)
        )
        out = self.values.new_zeros(self.n_cells, self.n_genes)
        return out.index_put_((cells, self.indices.long()), self.values)
