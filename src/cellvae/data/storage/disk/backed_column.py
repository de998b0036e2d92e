"""Counts of an h5ad file, dense or CSR, that are read from disk on access."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch
from scipy import sparse

from cellvae.data.storage.column import check_indices
from cellvae.data.storage.disk.h5ad_readers import DenseReader, SparseReader
from cellvae.data.storage.disk.matrix_reader import Reader
from cellvae.data.storage.disk.stored_reader import StoredReader
from cellvae.data.storage.matrix_files.joined_matrix import JoinedMatrix

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers, Counts
    from cellvae.data.storage.count_matrix import CountMatrix


def make_reader(matrix: CountMatrix) -> Reader:
    """Reader of a matrix on disk, dense or CSR, in one file or in several."""
    from anndata.abc import CSRDataset

    if isinstance(matrix.values, JoinedMatrix):
        return StoredReader(matrix)
    return SparseReader(matrix) if isinstance(matrix.values, CSRDataset) else DenseReader(matrix)


@final
class BackedColumn:
    """Counts that are read from the file batch by batch.

    Rows are read in the order of the file and then reordered, so the indices of cells may be in
    any order and may repeat.
    """

    def __init__(self, matrix: CountMatrix) -> None:
        self.reader = make_reader(matrix)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.reader)

    def take(self, cells: CellNumbers) -> Counts:
        """Counts of the cells with these indices, [cells, genes]."""
        matrix = self.reader.read(check_indices(cells, len(self)))
        dense = matrix.toarray() if sparse.issparse(matrix) else matrix
        return torch.from_numpy(dense.astype(np.float32, order="C", copy=False))

    def signature(self) -> str | None:
        """Hex digest of the files and of what is read of them; None for AnnData's backed mode."""
        return self.reader.signature() if isinstance(self.reader, StoredReader) else None
