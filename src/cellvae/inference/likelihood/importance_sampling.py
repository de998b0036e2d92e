"""Draws of the latent of cells and the weights that make them a sample of the marginal."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.inference.posterior_samples import decode_samples, iter_chunks

N_CANDIDATES = 25
"""Draws of a cell from which one is chosen."""


def log_weights(
    module: Module[Any], batch: Any, latent: Latent, n_samples: int
) -> Float[Tensor, "samples cells"]:
    """Logarithms of p(x, z) / q(z | x) for new draws z, in double precision; nats.

    Their mean (not of the logarithms) has the marginal likelihood p(x) as its expectation.

    Parameters
    ----------
    module
        Network of a trained model, in eval mode.
    batch
        Cells with their counts.
    latent
        What `module.encode` gave for them.
    n_samples
        Draws for each cell.
    """
    return weighted_samples(module, batch, latent, n_samples)[1]


def weighted_samples(
    module: Module[Any], batch: Any, latent: Latent, n_samples: int
) -> tuple[Latent, Float[Tensor, "samples cells"]]:
    """New draws of latent and size, [samples, cells, ...], and what :func:`log_weights` says."""
    samples = torch.Size([n_samples])
    z = latent.posterior.sample(samples)
    logs = (module.prior(batch).log_prob(z) - latent.posterior.log_prob(z)).double().sum(dim=-1)
    library = latent.log_library.expand(*samples, *latent.log_library.shape)
    of_size, prior_of_size = latent.log_library_posterior, module.library_prior(batch)
    if of_size is not None and prior_of_size is not None:
        library = of_size.sample(samples)
        ratio = prior_of_size.log_prob(library) - of_size.log_prob(library)
        logs += ratio.double().sum(dim=-1)
    drawn = latent._replace(sample=module.transform(z), log_library=library)
    for part, few in iter_chunks(drawn, batch.counts.shape[-1]):
        likelihood = decode_samples(module, few, batch).log_prob(batch.counts)
        logs[part] += likelihood.sum(dim=-1, dtype=torch.float64)
    return drawn, logs


def resample_latent(module: Module[Any], batch: Any, latent: Latent) -> Latent:
    """One draw for each cell, [1, cells, latent], chosen among candidates by their weights."""
    drawn, logs = weighted_samples(module, batch, latent, N_CANDIDATES)
    kept = torch.multinomial(logs.softmax(dim=0).T, 1).T.unsqueeze(-1)
    return drawn._replace(
        sample=drawn.sample.take_along_dim(kept, dim=0),
        log_library=drawn.log_library.take_along_dim(kept, dim=0),
    )
