"""Correlation of genes in expression without the noise of counting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Gamma

from cellvae.distributions import NegativeBinomial
from cellvae.distributions.density import LEAST, MOST
from cellvae.distributions.normalized import CountDistribution
from cellvae.errors import InvalidOptionError, did_you_mean
from cellvae.inference.counterfactual import BatchChoice, batch_codes
from cellvae.inference.draws import decode, draw_latent, in_parts
from cellvae.inference.pass_over import Pass, evaluating, pass_over
from cellvae.inference.protocols import HasDecoder

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

GENES_RANKED = 64
"""Genes whose draws are ranked at a time."""


def get_feature_correlation_matrix(
    model: HasDecoder,
    adata: AnnData | None = None,
    indices: CellChoice = None,
    n_samples: int = 10,
    batch_size: int | None = 64,
    rna_size_factor: float = 1000,
    transform_batch: BatchChoice = None,
    correlation_type: Literal["spearman", "pearson"] = "spearman",
    silent: bool = False,
) -> pd.DataFrame:
    """Correlation between genes over cells and draws of their expression.

    Under a negative binomial, zero inflated or not, the expression of a cell is drawn from the
    gamma distribution whose Poisson counts it describes: biological noise is kept, that of counting
    is not. Under other likelihoods it is the mean.

    Pearson's coefficient is summed up as the draws are made. Spearman's needs ranks, so all draws
    are held in single precision: 4 bytes for each cell, draw and gene.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those that the model was made with. Genes are matched by name.
    indices
        Cells asked for, by number, mask or name; None for all.
    n_samples
        Draws for each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    rna_size_factor
        Size that all cells are scaled to, in counts.
    transform_batch
        Batch that cells are decoded as if they came from, by name; coefficients for several are
        averaged. None is the batch that each cell has.
    correlation_type
        Coefficient.
    silent
        Whether no progress is shown.

    Returns
    -------
    DataFrame [genes, genes]; not a number for a gene whose expression does not vary.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    UnknownKeyError
        If a batch is not one of the model.
    InvalidOptionError
        If an argument has a value that it cannot take.
    """
    if n_samples < 1:
        raise InvalidOptionError(f"Expected n_samples to be at least 1; got {n_samples}.")
    if not 0 < rna_size_factor < float("inf"):
        raise InvalidOptionError(
            f"Expected rna_size_factor to be a positive number; got {rna_size_factor}."
        )
    if correlation_type not in ("spearman", "pearson"):
        raise InvalidOptionError(
            f"Expected correlation_type to be 'spearman' or 'pearson'; got {correlation_type!r}."
            f"{did_you_mean(str(correlation_type), ['spearman', 'pearson'])}"
        )
    codes = batch_codes(model.registration, transform_batch)
    asked = pass_over(model, adata, indices, batch_size, silent=silent)
    if len(asked.cells) * n_samples < 2:
        raise InvalidOptionError(
            "Expected at least two draws to correlate; got one cell with n_samples=1."
        )
    genes = model.registration.genes
    n_genes = len(genes)
    total = np.zeros((n_genes, n_genes))
    for code in codes:

        def draws(take: Callable[[Tensor], None], code: int | None = code) -> None:
            over_draws(model, asked, n_samples, float(rna_size_factor), code, take)

        n_draws = len(asked.cells) * n_samples
        total += (spearman if correlation_type == "spearman" else pearson)(draws, n_draws, n_genes)
    import pandas as pd

    return pd.DataFrame(total / len(codes), index=list(genes), columns=list(genes))


def over_draws(
    model: HasDecoder,
    asked: Pass,
    n_samples: int,
    size: float,
    code: int | None,
    take: Callable[[Tensor], None],
) -> None:
    """Hand on draws of expression, [draws, genes], part by part."""
    with evaluating(model):
        for _, batch in asked.batches():
            latent = draw_latent(model.module, batch, n_samples)
            for _, few in in_parts(latent, model.registration.n_genes):
                counts = decode(model.module, few, batch, code)
                take(denoised(counts, size).flatten(0, -2).cpu())


def denoised(counts: CountDistribution, size: float) -> Tensor:
    """Expression drawn without the noise of counting, at a size."""
    rate = counts.get_normalized("scale") * size
    if not isinstance(counts, NegativeBinomial):
        return rate
    theta = counts.theta.clamp(LEAST, MOST)
    return Gamma(theta, theta / rate, validate_args=False).sample()


def pearson(draws: Callable[[Callable[[Tensor], None]], None], _: int, n_genes: int) -> np.ndarray:
    """Coefficients of Pearson, from sums over the draws."""
    sums = torch.zeros(n_genes, dtype=torch.float64)
    products = torch.zeros(n_genes, n_genes, dtype=torch.float64)
    origin: list[Tensor] = []
    n_draws = 0

    def take(part: Tensor) -> None:
        nonlocal n_draws
        part = part.double()
        if not origin:
            # Sums of squares lose fewer digits close to the mean.
            origin.append(part.mean(dim=0))
        part -= origin[0]
        sums.add_(part.sum(dim=0))
        products.addmm_(part.T, part)
        n_draws += len(part)

    draws(take)
    return correlation_of((products - torch.outer(sums, sums) / n_draws).numpy())


def spearman(
    draws: Callable[[Callable[[Tensor], None]], None], n_draws: int, n_genes: int
) -> np.ndarray:
    """Coefficients of Spearman: those of Pearson for the ranks of the draws."""
    from scipy.stats import rankdata

    kept = np.empty((n_genes, n_draws), dtype=np.float32)
    filled = 0

    def take(part: Tensor) -> None:
        nonlocal filled
        kept[:, filled : filled + len(part)] = part.numpy().T
        filled += len(part)

    draws(take)
    for first in range(0, n_genes, GENES_RANKED):
        some = slice(first, first + GENES_RANKED)
        ranks = rankdata(kept[some], axis=1) - (n_draws + 1) / 2
        with np.errstate(invalid="ignore"):
            kept[some] = ranks / np.linalg.norm(ranks, axis=1, keepdims=True)
    return correlation_of((kept @ kept.T).astype(np.float64))


def correlation_of(covariance: np.ndarray) -> np.ndarray:
    """Coefficients from sums of squares and products."""
    spread = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        coefficients: np.ndarray = covariance / np.outer(spread, spread)
    np.fill_diagonal(coefficients, np.where(spread > 0, 1.0, np.nan))
    return coefficients.clip(-1, 1)
