"""Samples of counts from the posterior predictive distribution of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from cellvae.core.options import check_arguments
from cellvae.distributions.sparse_sampling import SparseCounts, sample_sparse
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    check_at_least_one,
    gene_positions,
)
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.posterior_samples import decode_samples, sample_latent
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor

    from cellvae.inference.protocols import CellChoice


@check_arguments(only=INTEGERS)
def posterior_predictive_sample(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    transform_batch: BatchChoice = None,
    n_samples: int = 1,
    gene_list: Iterable[str] | None = None,
    batch_size: int | None = None,
    silent: bool = False,
) -> sparse.csr_matrix | list[sparse.csr_matrix]:
    """Sample counts for each cell: the latent from its posterior, counts from the likelihood.

    Counts are sampled sparsely: time and memory grow with the number of nonzero counts.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    transform_batch
        Name of the batch that cells are decoded as if they came from; samples for several are
        averaged. None for the batch of each cell.
    n_samples
        Number of samples for each cell.
    gene_list
        Genes to return, in the requested order; None for all.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    SciPy CSR matrix [cells, genes] of 32-bit floats, in the requested order; for several samples
    a list of them. (scvi-tools returns an array of the package `sparse`, [cells, genes, samples].)

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene or batch is not one of the model.
    InvalidOptionError
        If no cells, genes or batches are cell_pass for, or `n_samples` or `batch_size` is below 1.
    """
    check_at_least_one("n_samples", n_samples)
    codes = batch_codes(model.registration, transform_batch)
    genes = gene_positions(model.registration.genes, gene_list)
    n_genes = model.registration.n_genes
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    builders: list[list[CSRBuilder]] = [
        [CSRBuilder(n_genes) for _ in codes] for _ in range(n_samples)
    ]
    with inference_mode(model):
        for positions, batch in cell_pass.iter_batches():
            n_cells = positions.stop - positions.start
            for sample in builders:
                latent = sample_latent(model.module, batch)
                for code, rows in zip(codes, sample, strict=True):
                    counts = decode_samples(model.module, latent, batch, code)
                    rows.add(sample_sparse(counts), n_cells)
    # Parts are freed as soon as their matrix is made, so that only one is in memory twice.
    samples = [average_csr(builders.pop(0), genes) for _ in range(n_samples)]
    return samples if n_samples > 1 else samples[0]


class CSRBuilder:
    """Builder of a CSR matrix from chunks of rows."""

    def __init__(self, n_columns: int) -> None:
        self.n_columns = n_columns
        self.values: list[NDArray[np.float32]] = []
        self.columns: list[NDArray[np.int32]] = []
        self.lengths: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]

    def add(self, counts: SparseCounts, n_rows: int) -> None:
        """Append rows."""
        rows = torch.div(counts.indices, self.n_columns, rounding_mode="floor")
        columns = counts.indices - rows * self.n_columns
        self.values.append(counts.values.float().cpu().numpy())
        self.columns.append(columns.int().cpu().numpy())
        self.lengths.append(torch.bincount(rows, minlength=n_rows).cpu().numpy())

    def matrix(self) -> sparse.csr_matrix:
        """CSR matrix of all rows."""
        from scipy import sparse

        indptr = np.cumsum(np.concatenate(self.lengths))
        parts = (np.concatenate(self.values), np.concatenate(self.columns), indptr)
        return sparse.csr_matrix(parts, shape=(len(indptr) - 1, self.n_columns))


def average_csr(parts: list[CSRBuilder], genes: Tensor | None) -> sparse.csr_matrix:
    """Mean of matrices, for the genes at some positions; None for all."""
    total = parts[0].matrix()
    for part in parts[1:]:
        total = total + part.matrix()
    if len(parts) > 1:
        total = total * np.float32(1 / len(parts))
    return total if genes is None else total[:, genes.numpy()]
