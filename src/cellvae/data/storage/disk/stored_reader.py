"""Reader of counts in files, of all cells and genes or of some."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.disk.matrix_reader import Reader
from cellvae.data.storage.matrix_files.csr_rows import CSRRows
from cellvae.data.storage.matrix_files.joined_matrix import (
    JoinedMatrix,
    are_same_cells,
    read_together,
)

if TYPE_CHECKING:
    from cellvae.data.storage.count_matrix import CountMatrix


@final
class StoredReader(Reader):
    """Reader of a :class:`JoinedMatrix`; whatever is not read is not in memory."""

    def __init__(self, matrix: CountMatrix) -> None:
        super().__init__(matrix)
        self.matrix: JoinedMatrix = matrix.values.select_genes(matrix.genes)
        self.n_genes = self.matrix.shape[1]

    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these rows of the file."""
        return self.matrix.values_before(rows)

    def read_rows(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """These rows of the file; the indices increase strictly."""
        read = self.matrix.read(rows)
        return sparse.csr_matrix(
            (read.data, read.indices, read.indptr), shape=(len(rows), self.n_genes)
        )

    def shares_cells(self, other: StoredReader) -> bool:
        """Whether another reader has the same cells of the same files, but for their genes."""
        return are_same_cells(self.cells, other.cells) and self.matrix.shares_cells(other.matrix)

    def signature(self) -> str:
        """Hex digest of the files as they were opened, and of which cells and genes are read."""
        digest = hashlib.blake2b(self.matrix.signature().encode(), digest_size=16)
        digest.update(b"all" if self.cells is None else self.cells.tobytes())
        return digest.hexdigest()


def read_csr(readers: Sequence[StoredReader], cells: NDArray[np.int64]) -> list[CSRRows]:
    """Cells with these indices, in this order, of readers that share cells; read once for all."""
    own = readers[0].cells
    stored = cells if own is None else own[cells]
    return read_together([reader.matrix for reader in readers], stored)
