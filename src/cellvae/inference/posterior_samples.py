"""Posterior samples of the latent of a batch of cells, and their decoded distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.distributions.protocol import CountDistribution

MAX_DECODED_ELEMENTS = 2**21
"""Values that are decoded at a time, so that memory does not grow with the number of samples."""


class PosteriorSamples(NamedTuple):
    """Posterior samples of a batch of cells, and their decoded distributions of the counts."""

    latent: Latent
    """Posterior, and samples of it, [samples, cells, latent]."""
    counts: CountDistribution
    """Distribution of the counts, [samples, cells, genes]."""

    @property
    def scales(self) -> Float[Tensor, "samples cells genes"]:
        """Normalized expression: a fraction of the cell, or with size factors per unit of them."""
        return self.counts.get_normalized("scale")

    @property
    def rates(self) -> Float[Tensor, "samples cells genes"]:
        """Mean of the counts at the library size of the cell, before zero inflation."""
        return self.counts.get_normalized("mu")


def sample_posterior(
    module: Module[Any], batch: Any, n_samples: int = 1, transform_batch: int | None = None
) -> PosteriorSamples:
    """Sample the latent posterior of cells, and decode as if the cells came from a batch.

    Random numbers come from torch's global generator. Use it within
    :func:`~cellvae.inference.cell_pass.inference_mode`.

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    batch
        Cells, on its device.
    n_samples
        Number of samples for each cell.
    transform_batch
        Code of the batch that the decoder reads; None for that of each cell. The encoder always
        reads that of each cell.

    Examples
    --------
    >>> samples = sample_posterior(model.module, batch, n_samples=25)  # doctest: +SKIP
    >>> samples.scales  # doctest: +SKIP
    """
    latent = sample_latent(module, batch, n_samples)
    return PosteriorSamples(latent, decode_samples(module, latent, batch, transform_batch))


def sample_latent(module: Module[Any], batch: Any, n_samples: int = 1) -> Latent:
    """Posterior of cells with samples of latent and library size, [samples, cells, ...]."""
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
    """Distribution of the counts for posterior samples, as if the cells came from a batch.

    None is the batch of each cell.
    """
    if transform_batch is not None:
        batch = batch._replace(batch=torch.full_like(batch.batch, transform_batch))
    counts: Any = module.decode(latent, batch)
    return counts


def iter_chunks(latent: Latent, n_genes: int) -> Iterator[tuple[slice, Latent]]:
    """Posterior samples in chunks that can be decoded with little memory."""
    n_samples, n_cells = latent.sample.shape[:2]
    step = max(1, MAX_DECODED_ELEMENTS // (n_cells * n_genes))
    for first in range(0, n_samples, step):
        part = slice(first, min(first + step, n_samples))
        yield (
            part,
            latent._replace(sample=latent.sample[part], log_library=latent.log_library[part]),
        )
