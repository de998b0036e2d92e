"""Reader of counts in files, of all cells and genes or of some."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cellvae.data.storage.disk.matrix_reader import Reader
from cellvae.data.storage.matrix_files.csr_rows import CSRRows

if TYPE_CHECKING:
    from cellvae.data.storage.count_matrix import CountMatrix


@final
class StoredReader(Reader):
    """Reader of a :class:`JoinedMatrix`; whatever is not read is not in memory."""

    def __init__(self, matrix: CountMatrix) -> None:
        super().__init__(matrix)
        self.matrix = matrix.values.select_genes(matrix.genes)
        self.n_genes = self.matrix.shape[1]

    def values_before(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of stored values before each of these rows of the file."""
        before: NDArray[np.int64] = self.matrix.values_before(rows)
        return before

    def read_rows(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        """These rows of the file; the indices increase strictly."""
        read = self.matrix.read(rows)
        return sparse.csr_matrix(
            (read.data, read.indices, read.indptr), shape=(len(rows), self.n_genes)
        )

    def read_csr(self, cells: NDArray[np.int64]) -> CSRRows:
        """Cells with these indices, in this order; indices may repeat."""
        read: CSRRows = self.matrix.read(cells if self.cells is None else self.cells[cells])
        return read

    def signature(self) -> str:
        """Hex digest of the files as they were opened, and of which cells and genes are read."""
        digest = hashlib.blake2b(self.matrix.signature().encode(), digest_size=16)
        digest.update(b"all" if self.cells is None else self.cells.tobytes())
        return digest.hexdigest()
