"""Importance sampling: posterior samples of cells and their weights p(x, z) / q(z | x)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.inference.posterior_samples import decode_samples, iter_chunks

N_CANDIDATES = 25
"""Number of samples of a cell from which one is chosen."""


def log_weights(
    module: Module[Any], batch: Any, latent: Latent, n_samples: int
) -> Float[Tensor, "samples cells"]:
    """Logarithms of p(x, z) / q(z | x) for new posterior samples z, in double precision; nats.

    The mean of the weights (not of their logarithms) is an unbiased estimate of p(x).

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    batch
        Cells with their counts.
    latent
        Result of `module.encode` for them.
    n_samples
        Number of samples for each cell.
    """
    return weighted_samples(module, batch, latent, n_samples)[1]


def weighted_samples(
    module: Module[Any], batch: Any, latent: Latent, n_samples: int
) -> tuple[Latent, Float[Tensor, "samples cells"]]:
    """New samples of latent and library size, [samples, cells, ...], and their log-weights."""
    samples = torch.Size([n_samples])
    z = latent.posterior.sample(samples)
    logs = (module.prior(batch).log_prob(z) - latent.posterior.log_prob(z)).double().sum(dim=-1)
    library = latent.log_library.expand(*samples, *latent.log_library.shape)
    library_posterior, library_prior = latent.log_library_posterior, module.library_prior(batch)
    if library_posterior is not None and library_prior is not None:
        library = library_posterior.sample(samples)
        ratio = library_prior.log_prob(library) - library_posterior.log_prob(library)
        logs += ratio.double().sum(dim=-1)
    sampled = latent._replace(sample=module.transform(z), log_library=library)
    for part, chunk in iter_chunks(sampled, batch.counts.shape[-1]):
        likelihood = decode_samples(module, chunk, batch).log_prob(batch.counts)
        logs[part] += likelihood.sum(dim=-1, dtype=torch.float64)
    return sampled, logs


def resample_latent(module: Module[Any], batch: Any, latent: Latent) -> Latent:
    """One sample for each cell, [1, cells, latent], chosen among candidates by their weights."""
    sampled, logs = weighted_samples(module, batch, latent, N_CANDIDATES)
    chosen = torch.multinomial(logs.softmax(dim=0).T, 1).T.unsqueeze(-1)
    return sampled._replace(
        sample=sampled.sample.take_along_dim(chosen, dim=0),
        log_library=sampled.log_library.take_along_dim(chosen, dim=0),
    )
