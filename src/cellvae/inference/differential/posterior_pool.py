"""Pool of posterior samples of all populations, from one pass over their cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import GenerativeModule, Latent, map_latent, map_samples
from cellvae.inference.cell_pass import CellPass
from cellvae.inference.differential.quantity import Quantity
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
    module: GenerativeModule[Any],
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
            latent = map_samples(lambda values: values[0], resample_latent(module, batch, latent))
        else:
            latent = sample_repeatedly(module, latent, n_repeats)
        parts.append((latent, repeat_rows(drop_observed(module, batch), n_repeats)))
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    inverse = inverse.to(cell_pass.device)
    latents, batches = zip(*parts, strict=True)
    latent = map_latent(lambda *values: torch.cat(values)[inverse], *latents)
    columns = (
        None if values[0] is None else torch.cat(values)[inverse]
        for values in zip(*batches, strict=True)
    )
    return PosteriorPool(latent, type(batches[0])(*columns), n_samples, sampled)


def sample_repeatedly(module: GenerativeModule[Any], latent: Latent, repeats: Tensor) -> Latent:
    """Posterior samples, as many of each cell as it was chosen, [samples, latent]."""
    repeated: Any = map_latent(lambda values: values.repeat_interleave(repeats, dim=0), latent)
    return repeated._replace(sample=module.transform(repeated.posterior.sample()))


def drop_observed(module: GenerativeModule[Any], batch: Any) -> Any:
    """Batch without the features of what was measured, which the decoder does not read."""
    fields = {name: getattr(batch, name) for name in module.observed_fields}
    return batch._replace(**{k: None if v is None else v[:, :0] for k, v in fields.items()})


def repeat_rows(batch: Any, repeats: Tensor) -> Any:
    """Batch in which each cell is repeated as often as it was chosen."""
    columns = (
        x.repeat_interleave(repeats, dim=0) if isinstance(x, Tensor) else None for x in batch
    )
    return type(batch)(*columns)


def decode_population(
    module: GenerativeModule[Any],
    quantity: Quantity,
    pool: PosteriorPool,
    population: int,
    codes: Tensor | None,
) -> Float[Tensor, "samples features"]:
    """Values of the samples of a population that are compared, decoded in chunks.

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    quantity
        Values that are compared.
    pool
        Samples of all populations.
    population
        Position of the population in the pool.
    codes
        Code of the batch that each sample is decoded for, [samples, 1]; None for that of its cell.
    """
    values: Tensor | None = None
    for samples, latent, batch in iter_pool_chunks(pool, population, quantity.n_features):
        if codes is not None:
            batch = module.replace_batch(batch, codes[samples])
        part = quantity.decode(latent, batch)
        if values is None:
            values = part.new_empty((pool.n_samples, quantity.n_features))
        values[samples] = part
    assert values is not None
    return values


def expected_counts(
    quantity: Quantity, pool: PosteriorPool, population: int
) -> Float[Tensor, " features"]:
    """Expected counts under the model, averaged over the samples of a population; float64."""
    total: Tensor | None = None
    for _, latent, batch in iter_pool_chunks(pool, population, quantity.n_features):
        part = quantity.expected_counts(latent, batch).sum(dim=0, dtype=torch.float64)
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
    latent = map_latent(lambda values: values[rows], pool.latent)
    batch = type(pool.batch)(*(None if x is None else x[rows] for x in pool.batch))
    return latent, batch
