"""Draws of populations chosen anew by importance weights over the whole population."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import Latent
from cellvae.inference.differential.posterior_pool import PosteriorPool, rows_of
from cellvae.inference.latent.aggregated_posterior import cell_posteriors
from cellvae.inference.likelihood.importance_weights import get_importance_weights

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
    """Pool whose draws are chosen among those given, with replacement, by importance weights.

    The weights are those of :func:`~cellvae.inference.get_importance_weights`: latent codes under
    which many cells of the population are likely are drawn more often (Boyeau et al. 2023). Memory
    holds the distributions of the counts of one population's draws, [draws, genes], at a time.

    Parameters
    ----------
    model
        Trained model.
    adata
        Cells; None for those of the model.
    populations
        Numbers of the cells of each population.
    pool
        Uniform draws for them.
    options
        Options of the weights.
    batch_size
        Cells per batch.
    """
    chosen, samples = [], []
    for place, cells in enumerate(populations):
        rows, z = resample_rows(model, adata, cells, pool, place, options, batch_size)
        chosen.append(rows)
        samples.append(z)
    order = torch.cat(chosen)
    latent = pool.latent
    normal = latent.posterior
    posterior = Normal(normal.loc[order], normal.scale[order], validate_args=False)
    sample = model.module.transform(torch.cat(samples))
    batch: Any = pool.batch
    columns = (None if values is None else values[order] for values in batch)
    return pool._replace(
        latent=Latent(posterior, sample, latent.log_library[order]),
        batch=type(batch)(*columns),
        cells=pool.cells[order.cpu()],
    )


def resample_rows(
    model: DecoderModel,
    adata: AnnData | None,
    cells: NDArray[np.int64],
    pool: PosteriorPool,
    place: int,
    options: ImportanceOptions,
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Rows of the pool that are drawn for a population, and the latent code of each."""
    first = place * pool.n_draws
    latent, batch = rows_of(pool, slice(first, first + pool.n_draws))
    z = latent.posterior.sample()
    decoded: Any = model.module.decode(latent._replace(sample=model.module.transform(z)), batch)
    means, deviations = cell_posteriors(model, adata, cells, batch_size, silent=True)
    weights = get_importance_weights(
        model,
        adata,
        cells,
        Normal(means, deviations, validate_args=False),
        decoded,
        z,
        batch_size=batch_size,
        silent=True,
        **asdict(options),
    )
    drawn = torch.multinomial(torch.from_numpy(weights), pool.n_draws, replacement=True)
    drawn = drawn.to(z.device)
    return first + drawn, z[drawn]
