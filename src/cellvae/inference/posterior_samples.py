"""Draws of the latent of a batch of cells, and what the decoder makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.distributions.protocol import CountDistribution

MAX_DECODED_ELEMENTS = 2**21
"""Values decoded at a time, so that memory does not grow with the number of draws."""


class PosteriorSamples(NamedTuple):
    """Draws of the latent of a batch of cells, and the counts that each of them stands for."""

    latent: Latent
    """Posterior, and draws from it, [samples, cells, latent]."""
    counts: CountDistribution
    """Distribution of the counts, [samples, cells, genes]."""

    @property
    def scales(self) -> Float[Tensor, "samples cells genes"]:
        """Normalized expression: shares of a cell, or, with size factors, per unit of size."""
        return self.counts.get_normalized("scale")

    @property
    def rates(self) -> Float[Tensor, "samples cells genes"]:
        """Mean of the counts of a cell of that size, before zero inflation."""
        return self.counts.get_normalized("mu")


def sample_posterior(
    module: Module[Any], batch: Any, n_samples: int = 1, transform_batch: int | None = None
) -> PosteriorSamples:
    """Draws of the latent of cells, decoded as if the cells came from a batch.

    Random numbers come from torch's global generator. Use it within
    :func:`~cellvae.inference.cell_pass.evaluating`.

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    batch
        Cells, on its device.
    n_samples
        Draws for each cell.
    transform_batch
        Code of the batch that the decoder is told; None for that of each cell. The encoder always
        reads that of each cell.

    Examples
    --------
    >>> draw(model.module, batch, n_samples=25, transform_batch=1).scales  # doctest: +SKIP
    """
    latent = sample_latent(module, batch, n_samples)
    return PosteriorSamples(latent, decode_samples(module, latent, batch, transform_batch))


def sample_latent(module: Module[Any], batch: Any, n_samples: int = 1) -> Latent:
    """Posterior of cells with draws of latent and size, [samples, cells, ...]."""
    latent = module.encode(batch)
    if n_samples == 1:
        return latent._replace(
            sample=latent.sample.unsqueeze(0), log_library=latent.log_library.unsqueeze(0)
        )
    samples = torch.Size([n_samples])
    library = latent.log_library_posterior
    return latent._replace(
        sample=module.transform(latent.posterior.sample(samples)),
        log_library=latent.log_library.expand(*samples, *latent.log_library.shape)
        if library is None
        else library.sample(samples),
    )


def decode_samples(
    module: Module[Any], latent: Latent, batch: Any, transform_batch: int | None = None
) -> CountDistribution:
    """Distribution of the counts of these draws if the cells came from a batch.

    Several batches are decoded from the same draws by several calls.
    """
    if transform_batch is not None:
        batch = batch._replace(batch=torch.full_like(batch.batch, transform_batch))
    counts: Any = module.decode(latent, batch)
    return counts


def iter_chunks(latent: Latent, n_genes: int) -> Iterator[tuple[slice, Latent]]:
    """Draws in parts, each of a size that can be decoded with little memory."""
    n_samples, n_cells = latent.sample.shape[:2]
    step = max(1, MAX_DECODED_ELEMENTS // (n_cells * n_genes))
    for first in range(0, n_samples, step):
        part = slice(first, min(first + step, n_samples))
        yield (
            part,
            latent._replace(sample=latent.sample[part], log_library=latent.log_library[part]),
        )
