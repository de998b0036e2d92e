"""Principal components of log-normalised counts, of cells and of simulated doublets."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.core.csr_batch import CSRBatch
from cellvae.data.batches.batching import iter_batches
from cellvae.inference.cell_pass import ENCODER_BATCH_SIZE

N_COMPONENTS = 20
TARGET_SUM = 1e4
"""Counts that every cell is scaled to before the logarithm."""
MAX_FITTED_CELLS = 20_000
"""Cells that the axes are fitted to, drawn at random from more."""


class ExpressionComponents(NamedTuple):
    """Principal axes of `log1p` of counts that are scaled to 10,000 a cell."""

    axes: NDArray[np.float32]
    """[genes, components], of unit length, by falling variance."""
    mean: NDArray[np.float32]
    """Mean of the fitted cells, [genes]."""

    @classmethod
    def fit(cls, rows: Rows[Any], cells: NDArray[np.int64], seed: int = 0) -> Self:
        """Axes of the cells with these indices, of 20,000 of them if there are more.

        Parameters
        ----------
        rows
            Rows with counts.
        cells
            Indices of at least two cells.
        seed
            Seed of the choice of cells.
        """
        from scipy import sparse

        if len(cells) > MAX_FITTED_CELLS:
            drawn = np.random.default_rng(seed).choice(len(cells), MAX_FITTED_CELLS, replace=False)
            cells = cells[np.sort(drawn)]
        parts = [
            sparse.csr_matrix(log_normalize(batch.counts).numpy())
            for _, batch in iter_batches(rows, cells, ENCODER_BATCH_SIZE)
        ]
        axes, mean = principal_axes(sparse.vstack(parts, format="csr"), N_COMPONENTS)
        return cls(axes.astype(np.float32), mean.astype(np.float32))

    def project(self, counts: Tensor | CSRBatch) -> Tensor:
        """Components of cells with these counts [cells, genes], [cells, components]."""
        axes, mean = torch.from_numpy(self.axes), torch.from_numpy(self.mean)
        return (log_normalize(counts) - mean) @ axes


def log_normalize(counts: Tensor | CSRBatch) -> Tensor:
    """Logarithm of one plus counts that are scaled to 10,000 a cell, [cells, genes], on the CPU."""
    dense = (counts.to_dense() if isinstance(counts, CSRBatch) else counts).float().cpu()
    return torch.log1p(dense * (TARGET_SUM / dense.sum(dim=1, keepdim=True).clamp(min=1)))


def principal_axes(
    matrix: Any, n_components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal axes [columns, components] of a sparse matrix, and the mean of its rows [columns].

    There are fewer components where rows or columns are no more than `n_components`.
    """
    import scanpy as sc

    mean = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()
    n_components = min(n_components, *(size - 1 for size in matrix.shape))
    if n_components < 1:
        return np.zeros((matrix.shape[1], 0)), mean
    _, axes, *_ = sc.pp.pca(
        matrix.astype(np.float64), n_comps=n_components, svd_solver="arpack", return_info=True
    )
    return axes.T, mean
