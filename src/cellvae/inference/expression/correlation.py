"""Correlation between genes in expression without counting noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
from cellvae.inference.expression.correlation_moments import CorrelationMoments, RankTable
from cellvae.inference.posterior_samples import iter_chunks, sample_latent
from cellvae.inference.protocols import DecoderModel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellvae.inference.protocols import CellChoice

MAX_RANKED = 20_000
"""Number of samples that ranks refer to, if there are more."""


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
    """Correlation between genes over cells and samples of their expression.

    A negative binomial, zero-inflated or not, is a mixture of Poisson distributions with gamma
    rates. Expression is sampled from the gamma distribution, which includes biological noise and no
    counting noise. Under other likelihoods it is the mean.

    Moments are summed as the samples are made, so that memory does not grow with them. Spearman's
    coefficient uses ranks among all samples, or among 20,000 random ones if there are more.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model. Genes are matched by name.
    indices
        Cells to use, by index, mask or name; None for all.
    n_samples
        Number of samples for each cell.
    batch_size
        Cells per batch; None for `settings.batch_size`.
    rna_size_factor
        Library size that all cells are scaled to, in counts.
    transform_batch
        Name of the batch that cells are decoded as if they came from; the coefficients of several
        are averaged. None for the batch of each cell.
    correlation_type
        Spearman's or Pearson's coefficient.
    silent
        Whether the progress bar is hidden.

    Returns
    -------
    DataFrame [genes, genes]; NaN for a gene whose expression does not vary.

    Raises
    ------
    NotTrainedError
        If the model has not been trained.
    DataMismatchError
        If genes or categories of `adata` are not those of the model.
    UnknownKeyError
        If a batch is not one of the model.
    InvalidOptionError
        If an argument has an invalid value.
    """
    output = model.module.outputs[0]

    def sample_expression(decoded: Mapping[str, Any]) -> Tensor:
        return denoised_expression(decoded[output], float(rna_size_factor))

    return correlate_features(
        model,
        adata,
        indices,
        sample_expression,
        list(model.registration.genes),
        n_samples=n_samples,
        batch_size=batch_size,
        rna_size_factor=rna_size_factor,
        transform_batch=transform_batch,
        correlation_type=correlation_type,
        silent=silent,
    )


def correlate_features(
    model: DecoderModel,
    adata: AnnData | None,
    indices: CellChoice,
    sample_expression: Callable[[Mapping[str, Any]], Tensor],
    names: list[str],
    *,
    n_samples: int,
    batch_size: int | None,
    rna_size_factor: float,
    transform_batch: BatchChoice,
    correlation_type: str,
    silent: bool,
) -> pd.DataFrame:
    """Correlation between features over cells and samples, [features, features].

    Parameters
    ----------
    sample_expression
        Sample of the features, [samples, cells, features], from decoded distributions by name.
    names
        Names of the features.
    model, adata, indices, n_samples, batch_size, rna_size_factor, transform_batch
        As in :func:`get_feature_correlation_matrix`.
    correlation_type, silent
        As in :func:`get_feature_correlation_matrix`.
    """
    import pandas as pd

    check_at_least_one("n_samples", n_samples)
    if not 0 < rna_size_factor < float("inf"):
        raise InvalidOptionError(
            f"Expected rna_size_factor to be a positive number; got {rna_size_factor}."
        )
    check_choice("correlation_type", correlation_type, ("spearman", "pearson"))
    codes = batch_codes(model.registration, transform_batch)
    cell_pass = plan_pass(model, adata, indices, batch_size, silent=silent)
    if len(cell_pass.cells) * n_samples < 2:
        raise InvalidOptionError(
            "Expected at least two samples to correlate; got one cell with n_samples=1."
        )
    correlate = spearman if correlation_type == "spearman" else pearson
    with inference_mode(model):
        matrices = [
            correlate(
                model,
                cell_pass,
                CorrelationRequest(n_samples, code, sample_expression, len(names)),
            )
            for code in codes
        ]
    return pd.DataFrame(np.mean(matrices, axis=0), index=names, columns=names)


class CorrelationRequest(NamedTuple):
    """What is sampled for each cell."""

    n_samples: int
    code: int | None
    """Batch that cells are decoded for."""
    sample_expression: Callable[[Mapping[str, Any]], Tensor]
    """Sample of the features from decoded distributions by name."""
    n_features: int


def pearson(model: DecoderModel, cell_pass: CellPass, request: CorrelationRequest) -> np.ndarray:
    """Pearson's correlation coefficients, [features, features]."""
    moments = CorrelationMoments(request.n_features)
    for part in iter_expression_samples(model, cell_pass, request):
        moments.add(part)
    return moments.coefficients()


def spearman(model: DecoderModel, cell_pass: CellPass, request: CorrelationRequest) -> np.ndarray:
    """Spearman's correlation coefficients: those of Pearson for ranks, [features, features]."""
    n_samples, n_features = len(cell_pass.cells) * request.n_samples, request.n_features
    moments = CorrelationMoments(n_features)
    if n_samples <= MAX_RANKED:
        parts = [*iter_expression_samples(model, cell_pass, request)]
        ranked = RankTable(n_features, n_samples)
        for part in parts:
            ranked.add(part)
        for part in parts:
            moments.add(ranked.ranks(part))
        return moments.coefficients()
    positions = torch.randint(len(cell_pass.cells), (MAX_RANKED,))
    subset = cell_pass._replace(cells=cell_pass.cells[positions])
    ranked = RankTable(n_features, MAX_RANKED)
    for part in iter_expression_samples(model, subset, request._replace(n_samples=1)):
        ranked.add(part)
    for part in iter_expression_samples(model, cell_pass, request):
        moments.add(ranked.ranks(part))
    return moments.coefficients()


def iter_expression_samples(
    model: DecoderModel, cell_pass: CellPass, request: CorrelationRequest
) -> Iterator[Tensor]:
    """Samples of expression in chunks, [samples, features]."""
    module = model.module
    for _, batch in cell_pass.iter_batches():
        latent = sample_latent(module, batch, request.n_samples)
        if request.code is not None:
            batch = module.replace_batch(batch, request.code)
        for _, few in iter_chunks(latent, request.n_features):
            yield request.sample_expression(module.decode(few, batch)).flatten(0, -2).cpu()


def denoised_expression(counts: CountDistribution, library_size: float) -> Tensor:
    """Sample of expression without counting noise, at a library size."""
    rate = counts.get_normalized("scale") * library_size
    if not isinstance(counts, NegativeBinomial):
        return rate
    theta = counts.theta.clamp(MIN_MEAN, MAX_INVERSE_DISPERSION)
    return Gamma(theta, theta / rate, validate_args=False).sample()
