"""Samples of genes and proteins: counts from the posterior predictive, and correlations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cellvae.core.options import check_arguments
from cellvae.distributions import NegativeBinomial
from cellvae.distributions.sparse_sampling import sample_sparse
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    check_at_least_one,
    feature_positions,
    gene_names,
    gene_positions,
)
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.expression.correlation import correlate_features, denoised_expression
from cellvae.inference.likelihood.posterior_predictive import CSRBuilder, average_csr
from cellvae.inference.posterior_samples import sample_latent
from cellvae.inference.proteins.protein_expression import protein_names
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    from cellvae.inference.protocols import CellChoice

LOG_OFFSET = 1e-8
"""Added to the expression of genes before its logarithm is taken."""


@check_arguments(only=INTEGERS)
def joint_posterior_predictive_sample(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples: int = 1,
    batch_size: int | None = None,
    gene_list: Iterable[str] | None = None,
    protein_list: Iterable[str] | None = None,
    *,
    transform_batch: BatchChoice = None,
    silent: bool = False,
) -> dict[str, sparse.csr_matrix | list[sparse.csr_matrix] | np.ndarray]:
    """Sample counts of genes and proteins for each cell, from posterior and likelihood.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Features are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    n_samples
        Number of samples for each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    gene_list, protein_list
        Genes and proteins to return, in the requested order; None for all.
    transform_batch
        Name of the batch that cells are decoded as if they came from; samples for several are
        averaged. None for the batch of each cell.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    `"rna"`: SciPy CSR matrix [cells, genes], for several samples a list of them; `"protein"`: array
    [cells, proteins], for several samples [samples, cells, proteins]; in the requested order.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If features or categories of `adata` are not those of the model.
    UnknownKeyError
        If a gene, protein or batch is not one of the model.
    InvalidOptionError
        If no cells are requested, or `n_samples` or `batch_size` is below 1.
    """
    check_at_least_one("n_samples", n_samples)
    codes = batch_codes(model.registration, transform_batch)
    names, n_genes = protein_names(model), model.registration.n_genes
    genes = gene_positions(model.registration.genes, gene_list)
    proteins = feature_positions(names, protein_list, "protein")
    columns = slice(None) if proteins is None else proteins
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    builders = [[CSRBuilder(n_genes) for _ in codes] for _ in range(n_samples)]
    shape = (n_samples, len(cell_pass.cells), len(gene_names(names, proteins)))
    of_proteins = torch.zeros(shape)
    module = model.module
    with inference_mode(model):
        for positions, batch in cell_pass.iter_batches():
            n_cells = positions.stop - positions.start
            for i, sample in enumerate(builders):
                latent = sample_latent(module, batch)
                for code, rows in zip(codes, sample, strict=True):
                    at = batch if code is None else module.replace_batch(batch, code)
                    decoded: dict[str, Any] = module.decode(latent, at)
                    rows.add(sample_sparse(decoded["rna"]), n_cells)
                    counts = decoded["protein"].sample()[0, :, columns]
                    of_proteins[i, positions] += counts.cpu() / len(codes)
    of_genes = [average_csr(builders.pop(0), genes) for _ in range(n_samples)]
    if n_samples == 1:
        return {"rna": of_genes[0], "protein": of_proteins[0].numpy()}
    return {"rna": of_genes, "protein": of_proteins.numpy()}


@check_arguments(only=INTEGERS)
def get_joint_correlation_matrix(
    model: DecoderModel,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples: int = 10,
    batch_size: int | None = 64,
    rna_size_factor: float = 1000,
    transform_batch: BatchChoice = None,
    correlation_type: Literal["spearman", "pearson"] = "spearman",
    log_transform: bool = False,
    silent: bool = False,
) -> pd.DataFrame:
    """Correlation between genes and proteins over cells and samples of their expression.

    Samples have no counting noise. Proteins are without their background: whether a protein is
    foreground is sampled, and is 0 otherwise.

    Parameters
    ----------
    log_transform
        Whether logarithms are correlated, log(x + 1e-8) of genes and log(1 + x) of proteins; of
        effect on Pearson's coefficient only.
    model, adata, indices, n_samples, batch_size, rna_size_factor, transform_batch
        As in :func:`~cellvae.inference.get_feature_correlation_matrix`.
    correlation_type, silent
        As in :func:`~cellvae.inference.get_feature_correlation_matrix`.

    Returns
    -------
    DataFrame [genes and proteins, genes and proteins]; NaN for a feature that does not vary.

    Raises
    ------
    NotTrainedError, DataMismatchError, UnknownKeyError, InvalidOptionError
        As in :func:`~cellvae.inference.get_feature_correlation_matrix`.
    """

    def sample_expression(decoded: Mapping[str, Any]) -> Tensor:
        genes = denoised_expression(decoded["rna"], float(rna_size_factor))
        mixture = decoded["protein"]
        foreground = NegativeBinomial(mu=mixture.mu2, theta=mixture.theta2, scale=mixture.mu2)
        proteins = denoised_expression(foreground, 1.0)
        proteins = proteins * (1 - torch.bernoulli(mixture.mixture_probs))
        if log_transform:
            genes, proteins = (genes + LOG_OFFSET).log(), proteins.log1p()
        return torch.cat([genes, proteins], dim=-1)

    return correlate_features(
        model,
        adata,
        indices,
        sample_expression,
        [*model.registration.genes, *protein_names(model)],
        n_samples=n_samples,
        batch_size=batch_size,
        rna_size_factor=rna_size_factor,
        transform_batch=transform_batch,
        correlation_type=correlation_type,
        silent=silent,
    )
