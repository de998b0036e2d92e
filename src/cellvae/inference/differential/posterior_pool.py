"""Draws of the latent for all populations, from one pass; decoded population by population."""

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
    """Draws for populations one after the other; nothing in it has the size of the genes."""

    latent: Latent
    """[draws, latent]."""
    batch: Any
    """What the decoder reads beside it, without counts."""
    n_draws: int
    """Draws of each population."""
    cells: Tensor
    """Number of the cell of each draw."""


def sample_pool(
    module: Module[Any],
    asked: CellPass,
    populations: list[NDArray[np.int64]],
    n_draws: int,
    *,
    importance: bool,
) -> PosteriorPool:
    """Draws of cells that are chosen at random, with replacement, before any is encoded.

    A cell that was chosen several times is encoded once, unless draws are weighted.
    """
    drawn = torch.cat(
        [torch.from_numpy(cells)[torch.randint(len(cells), (n_draws,))] for cells in populations]
    )
    ordered, order = drawn.sort(stable=True)
    if importance:
        cells, repeats = ordered, torch.ones_like(ordered)
    else:
        cells, repeats = ordered.unique_consecutive(return_counts=True)
    parts = []
    for positions, batch in asked._replace(cells=cells).iter_batches():
        many = repeats[positions].to(asked.device)
        latent = module.encode(batch)
        if importance:
            kept = resample_latent(module, batch, latent)
            latent = latent._replace(sample=kept.sample[0], log_library=kept.log_library[0])
        else:
            latent = resample(module, latent, many)
        parts.append((latent, repeat_rows(batch._replace(counts=batch.counts[:, :0]), many)))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    back = back.to(asked.device)
    latents, batches = zip(*parts, strict=True)
    joined = Latent(
        concat_normals([latent.posterior for latent in latents], back),
        torch.cat([latent.sample for latent in latents])[back],
        torch.cat([latent.log_library for latent in latents])[back],
    )
    columns = (
        None if values[0] is None else torch.cat(values)[back]
        for values in zip(*batches, strict=True)
    )
    return PosteriorPool(joined, type(batches[0])(*columns), n_draws, drawn)


def resample(module: Module[Any], latent: Latent, repeats: Tensor) -> Latent:
    """As many draws for each cell as it was chosen, [draws, latent]."""
    posterior = Normal(
        latent.posterior.loc.repeat_interleave(repeats, dim=0),
        latent.posterior.scale.repeat_interleave(repeats, dim=0),
        validate_args=False,
    )
    library = latent.log_library.repeat_interleave(repeats, dim=0)
    return Latent(posterior, module.transform(posterior.sample()), library)


def repeat_rows(batch: Any, repeats: Tensor) -> Any:
    """Batch in which each cell comes as often as it was chosen."""
    columns = (
        x.repeat_interleave(repeats, dim=0) if isinstance(x, Tensor) else None for x in batch
    )
    return type(batch)(*columns)


def concat_normals(normals: list[Normal], order: Tensor) -> Normal:
    """Normal distributions one after the other, then in another order."""
    loc = torch.cat([normal.loc for normal in normals])[order]
    return Normal(loc, torch.cat([normal.scale for normal in normals])[order], validate_args=False)


def decode_population(
    module: Module[Any], pool: PosteriorPool, population: int, n_genes: int, codes: Tensor | None
) -> Float[Tensor, "draws genes"]:
    """Normalized expression of the draws of a population.

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    pool
        Draws of all populations.
    population
        Its place among them.
    n_genes
        Genes of the model.
    codes
        Code of the batch that each draw is decoded as if it came from, [draws, 1]; None for that
        of its cell.
    """
    values: Tensor | None = None
    for draws, latent, batch in parts_of(pool, population, n_genes):
        if codes is not None:
            batch = batch._replace(batch=codes[draws])
        scales = module.decode_scale(latent, batch)
        if values is None:
            values = scales.new_empty((pool.n_draws, n_genes))
        values[draws] = scales
    assert values is not None
    return values


def expected_counts(
    module: Module[Any], pool: PosteriorPool, population: int, n_genes: int
) -> Float[Tensor, " genes"]:
    """Mean of the counts that the draws of a population stand for, in double precision."""
    total: Tensor | None = None
    for _, latent, batch in parts_of(pool, population, n_genes):
        counts: Any = module.decode(latent, batch)
        part = counts.mean.sum(dim=0, dtype=torch.float64)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total / pool.n_draws


def parts_of(
    pool: PosteriorPool, population: int, n_genes: int
) -> Iterator[tuple[slice, Latent, Any]]:
    """Draws of a population in parts of a size that can be decoded with little memory."""
    first = population * pool.n_draws
    step = max(1, MAX_DECODED_ELEMENTS // n_genes)
    for start in range(0, pool.n_draws, step):
        end = min(start + step, pool.n_draws)
        yield slice(start, end), *rows_of(pool, slice(first + start, first + end))


def rows_of(pool: PosteriorPool, rows: slice) -> tuple[Latent, Any]:
    """Some of the draws, and what the decoder reads beside them."""
    normal = pool.latent.posterior
    latent = Latent(
        Normal(normal.loc[rows], normal.scale[rows], validate_args=False),
        pool.latent.sample[rows],
        pool.latent.log_library[rows],
    )
    batch = type(pool.batch)(*(None if x is None else x[rows] for x in pool.batch))
    return latent, batch
