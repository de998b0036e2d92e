"""Pool of posterior samples of all populations, from one pass over their cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import Latent, Module
from cellvae.inference.cell_pass import CellPass
from cellvae.inference.likelihood.importance_sampling import resample_latent
from cellvae.inference.posterior_samples import MAX_DECODED_ELEMENTS


class PosteriorPool(NamedTuple):
    """Posterior samples of all populations, concatenated; nothing in it grows with the genes."""

    latent: Latent
    """Posteriors and samples, [samples, latent]."""
    batch: Any
    """Other inputs of the decoder, without counts."""
    n_samples: int
    """Number of samples of each population."""
    cells: Tensor
    """Index of the cell of each sample."""


def sample_pool(
    module: Module[Any],
    cell_pass: CellPass,
    populations: list[NDArray[np.int64]],
    n_samples: int,
    *,
    importance: bool,
) -> PosteriorPool:
    """Posterior samples of random cells, chosen with replacement before any is encoded.

    A cell that was chosen several times is encoded once, unless its samples have importance
    weights.
    """
    sampled = torch.cat(
        [torch.from_numpy(cells)[torch.randint(len(cells), (n_samples,))] for cells in populations]
    )
    ordered, order = sampled.sort(stable=True)
    if importance:
        cells, repeats = ordered, torch.ones_like(ordered)
    else:
        cells, repeats = ordered.unique_consecutive(return_counts=True)
    parts = []
    for positions, batch in cell_pass._replace(cells=cells).iter_batches():
        n_repeats = repeats[positions].to(cell_pass.device)
        latent = module.encode(batch)
        if importance:
            chosen = resample_latent(module, batch, latent)
            latent = latent._replace(sample=chosen.sample[0], log_library=chosen.log_library[0])
        else:
            latent = sample_repeatedly(module, latent, n_repeats)
        parts.append((latent, repeat_rows(batch._replace(counts=batch.counts[:, :0]), n_repeats)))
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    inverse = inverse.to(cell_pass.device)
    latents, batches = zip(*parts, strict=True)
    latent = Latent(
        concat_normals([latent.posterior for latent in latents], inverse),
        torch.cat([latent.sample for latent in latents])[inverse],
        torch.cat([latent.log_library for latent in latents])[inverse],
    )
    columns = (
        None if values[0] is None else torch.cat(values)[inverse]
        for values in zip(*batches, strict=True)
    )
    return PosteriorPool(latent, type(batches[0])(*columns), n_samples, sampled)


def sample_repeatedly(module: Module[Any], latent: Latent, repeats: Tensor) -> Latent:
    """Posterior samples, as many of each cell as it was chosen, [samples, latent]."""
    posterior = Normal(
        latent.posterior.loc.repeat_interleave(repeats, dim=0),
        latent.posterior.scale.repeat_interleave(repeats, dim=0),
        validate_args=False,
    )
    library = latent.log_library.repeat_interleave(repeats, dim=0)
    return Latent(posterior, module.transform(posterior.sample()), library)


def repeat_rows(batch: Any, repeats: Tensor) -> Any:
    """Batch in which each cell is repeated as often as it was chosen."""
    columns = (
        x.repeat_interleave(repeats, dim=0) if isinstance(x, Tensor) else None for x in batch
    )
    return type(batch)(*columns)


def concat_normals(normals: list[Normal], order: Tensor) -> Normal:
    """Concatenated normal distributions, reordered."""
    loc = torch.cat([normal.loc for normal in normals])[order]
    return Normal(loc, torch.cat([normal.scale for normal in normals])[order], validate_args=False)


def decode_population(
    module: Module[Any], pool: PosteriorPool, population: int, n_genes: int, codes: Tensor | None
) -> Float[Tensor, "samples genes"]:
    """Normalized expression of the samples of a population, decoded in chunks.

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    pool
        Samples of all populations.
    population
        Position of the population in the pool.
    n_genes
        Number of genes of the model.
    codes
        Code of the batch that each sample is decoded for, [samples, 1]; None for that of its cell.
    """
    values: Tensor | None = None
    for samples, latent, batch in iter_pool_chunks(pool, population, n_genes):
        if codes is not None:
            batch = batch._replace(batch=codes[samples])
        scales = module.decode_scale(latent, batch)
        if values is None:
            values = scales.new_empty((pool.n_samples, n_genes))
        values[samples] = scales
    assert values is not None
    return values


def expected_counts(
    module: Module[Any], pool: PosteriorPool, population: int, n_genes: int
) -> Float[Tensor, " genes"]:
    """Expected counts under the model, averaged over the samples of a population; float64."""
    total: Tensor | None = None
    for _, latent, batch in iter_pool_chunks(pool, population, n_genes):
        counts: Any = module.decode(latent, batch)
        part = counts.mean.sum(dim=0, dtype=torch.float64)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total / pool.n_samples


def iter_pool_chunks(
    pool: PosteriorPool, population: int, n_genes: int
) -> Iterator[tuple[slice, Latent, Any]]:
    """Samples of a population in chunks that can be decoded with little memory."""
    first = population * pool.n_samples
    step = max(1, MAX_DECODED_ELEMENTS // n_genes)
    for start in range(0, pool.n_samples, step):
        end = min(start + step, pool.n_samples)
        yield slice(start, end), *slice_pool(pool, slice(first + start, first + end))


def slice_pool(pool: PosteriorPool, rows: slice) -> tuple[Latent, Any]:
    """Some of the samples, and the other inputs of the decoder."""
    normal = pool.latent.posterior
    latent = Latent(
        Normal(normal.loc[rows], normal.scale[rows], validate_args=False),
        pool.latent.sample[rows],
        pool.latent.log_library[rows],
    )
    batch = type(pool.batch)(*(None if x is None else x[rows] for x in pool.batch))
    return latent, batch
