"""Resampling of the posterior samples of populations, by importance weights over all cells."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import map_latent
from cellvae.inference.differential.posterior_pool import PosteriorPool, slice_pool
from cellvae.inference.latent.aggregated_posterior import cell_posteriors
from cellvae.inference.likelihood.importance_weights import get_importance_weights
from cellvae.inference.posterior_samples import decode_samples

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from cellvae.inference.likelihood.importance_options import ImportanceOptions
    from cellvae.inference.protocols import DecoderModel


def resample_pool(
    model: DecoderModel,
    adata: AnnData | None,
    populations: list[NDArray[np.int64]],
    pool: PosteriorPool,
    options: ImportanceOptions,
    batch_size: int | None,
) -> PosteriorPool:
    """Pool whose samples are chosen from another pool, with replacement, by importance weights.

    The weights are those of :func:`~cellvae.inference.get_importance_weights`: latent codes under
    which many cells of the population are likely are chosen more often (Boyeau et al. 2023). Memory
    holds the decoded distributions of the samples of one population, [samples, genes].

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    populations
        Indices of the cells of each population.
    pool
        Uniform samples of them.
    options
        Options of the weights.
    batch_size
        Cells per batch.
    """
    rows, codes = [], []
    for population, cells in enumerate(populations):
        chosen, z = resample_rows(model, adata, cells, pool, population, options, batch_size)
        rows.append(chosen)
        codes.append(z)
    order = torch.cat(rows)
    latent: Any = map_latent(lambda values: values[order], pool.latent)
    sample = model.module.transform(torch.cat(codes))
    batch: Any = pool.batch
    columns = (None if values is None else values[order] for values in batch)
    return pool._replace(
        latent=latent._replace(sample=sample),
        batch=type(batch)(*columns),
        cells=pool.cells[order.cpu()],
    )


def resample_rows(
    model: DecoderModel,
    adata: AnnData | None,
    cells: NDArray[np.int64],
    pool: PosteriorPool,
    population: int,
    options: ImportanceOptions,
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Rows of the pool that are chosen for a population, and the latent code of each."""
    first = population * pool.n_samples
    sliced, batch = slice_pool(pool, slice(first, first + pool.n_samples))
    latent: Any = sliced
    z = latent.posterior.sample()
    decoded = decode_samples(model.module, latent._replace(sample=model.module.transform(z)), batch)
    means, stds = cell_posteriors(model, adata, cells, batch_size, silent=True)
    weights = get_importance_weights(
        model,
        adata,
        cells,
        Normal(means, stds, validate_args=False),
        decoded,
        z,
        batch_size=batch_size,
        silent=True,
        **asdict(options),
    )
    chosen = torch.multinomial(torch.from_numpy(weights), pool.n_samples, replacement=True)
    chosen = chosen.to(z.device)
    return first + chosen, z[chosen]
