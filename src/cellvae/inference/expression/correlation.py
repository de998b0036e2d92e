"""Correlation of genes in expression without the noise of counting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Gamma

from cellvae.core.options import check_arguments
from cellvae.distributions import NegativeBinomial
from cellvae.distributions.functional.log_prob import MAX_INVERSE_DISPERSION, MIN_MEAN
from cellvae.distributions.protocol import CountDistribution
from cellvae.errors import InvalidOptionError
from cellvae.inference.arguments import (
    INTEGERS,
    BatchChoice,
    batch_codes,
    check_at_least_one,
    check_choice,
)
from cellvae.inference.cell_pass import CellPass, inference_mode, plan_pass
from cellvae.inference.expression.correlation_moments import CorrelationMoments, RankedDraws
from cellvae.inference.posterior_samples import decode_samples, iter_chunks, sample_latent
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

MAX_RANKED = 20_000
"""Draws among which others have their rank."""


@check_arguments(only=INTEGERS)
def get_feature_correlation_matrix(
    model: DecoderModel,
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

    Coefficients are summed up as the draws are made, so memory does not grow with them. Spearman's
    is that of ranks among all draws, or, where there are more, among 20,000 chosen at random.

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
    check_at_least_one("n_samples", n_samples)
    if not 0 < rna_size_factor < float("inf"):
        raise InvalidOptionError(
            f"Expected rna_size_factor to be a positive number; got {rna_size_factor}."
        )
    check_choice("correlation_type", correlation_type, ("spearman", "pearson"))
    codes = batch_codes(model.registration, transform_batch)
    asked = plan_pass(model, adata, indices, batch_size, silent=silent)
    if len(asked.cells) * n_samples < 2:
        raise InvalidOptionError(
            "Expected at least two draws to correlate; got one cell with n_samples=1."
        )
    of_kind = spearman if correlation_type == "spearman" else pearson
    size = float(rna_size_factor)
    with inference_mode(model):
        each = [of_kind(model, asked, CorrelationRequest(n_samples, size, code)) for code in codes]
    import pandas as pd

    genes = list(model.registration.genes)
    return pd.DataFrame(np.mean(each, axis=0), index=genes, columns=genes)


class CorrelationRequest(NamedTuple):
    """What is drawn for each cell."""

    n_samples: int
    size: float
    """Size that all cells are scaled to."""
    code: int | None
    """Batch that cells are decoded for."""


def pearson(model: DecoderModel, asked: CellPass, wanted: CorrelationRequest) -> np.ndarray:
    """Coefficients of Pearson."""
    moments = CorrelationMoments(model.registration.n_genes)
    for part in iter_expression_draws(model, asked, wanted):
        moments.add(part)
    return moments.coefficients()


def spearman(model: DecoderModel, asked: CellPass, wanted: CorrelationRequest) -> np.ndarray:
    """Coefficients of Spearman: those of Pearson for ranks."""
    n_draws, n_genes = len(asked.cells) * wanted.n_samples, model.registration.n_genes
    moments = CorrelationMoments(n_genes)
    if n_draws <= MAX_RANKED:
        parts = [*iter_expression_draws(model, asked, wanted)]
        ranked = RankedDraws(n_genes, n_draws)
        for part in parts:
            ranked.add(part)
        for part in parts:
            moments.add(ranked.ranks(part))
        return moments.coefficients()
    chosen = torch.randint(len(asked.cells), (MAX_RANKED,))
    some = asked._replace(cells=asked.cells[chosen])
    ranked = RankedDraws(n_genes, MAX_RANKED)
    for part in iter_expression_draws(model, some, wanted._replace(n_samples=1)):
        ranked.add(part)
    for part in iter_expression_draws(model, asked, wanted):
        moments.add(ranked.ranks(part))
    return moments.coefficients()


def iter_expression_draws(
    model: DecoderModel, asked: CellPass, wanted: CorrelationRequest
) -> Iterator[Tensor]:
    """Draws of expression, [draws, genes], part by part."""
    for _, batch in asked.iter_batches():
        latent = sample_latent(model.module, batch, wanted.n_samples)
        for _, few in iter_chunks(latent, model.registration.n_genes):
            counts = decode_samples(model.module, few, batch, wanted.code)
            yield denoised_expression(counts, wanted.size).flatten(0, -2).cpu()


def denoised_expression(counts: CountDistribution, size: float) -> Tensor:
    """Expression drawn without the noise of counting, at a size."""
    rate = counts.get_normalized("scale") * size
    if not isinstance(counts, NegativeBinomial):
        return rate
    theta = counts.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
    return Gamma(theta, theta / rate, validate_args=False).sample()
