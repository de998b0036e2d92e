"""Importance sampling: posterior samples of cells and their weights p(x, z) / q(z | x)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import GenerativeModule, Latent, map_samples
from cellvae.inference.posterior_samples import iter_chunks

N_CANDIDATES = 25
"""Number of samples of a cell from which one is chosen."""


def log_weights(
    module: GenerativeModule[Any], batch: Any, latent: Latent, n_samples: int
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
    module: GenerativeModule[Any], batch: Any, latent: Latent, n_samples: int
) -> tuple[Latent, Float[Tensor, "samples cells"]]:
    """New samples of all latent variables, [samples, cells, ...], and their log-weights."""
    sampled, logs = module.sample_with_log_ratio(latent, batch, n_samples)
    n_features = sum(values.shape[-1] for values in module.observed_values(batch).values())
    for part, chunk in iter_chunks(sampled, n_features):
        for likelihood in module.log_likelihoods(chunk, batch).values():
            logs[part] += likelihood
    return sampled, logs


def resample_latent(module: GenerativeModule[Any], batch: Any, latent: Latent) -> Latent:
    """One sample for each cell, [1, cells, latent], chosen among candidates by their weights."""
    sampled, logs = weighted_samples(module, batch, latent, N_CANDIDATES)
    chosen = torch.multinomial(logs.softmax(dim=0).T, 1).T.unsqueeze(-1)
    return map_samples(lambda values: values.take_along_dim(chosen, dim=0), sampled)
