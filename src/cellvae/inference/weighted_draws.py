"""Draws of the latent of cells weighted by how well they fit, or chosen by it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import Latent, Module
from cellvae.inference.draws import decode, in_parts

CANDIDATES = 25
"""Draws of a cell from which one is chosen."""


def weighted_draws(
    module: Module[Any], batch: Any, n_samples: int
) -> tuple[Latent, Float[Tensor, "samples cells"]]:
    """Draws from the posterior of each cell with weights that bring them to the true one.

    Weights are p(z) p(x | z) / q(z | x), of a sum of 1 for each cell. The prior of z is standard
    normal. Where sizes are latent, x is judged at the mean size of the cell.
    """
    latent = module.encode(batch)
    z = latent.posterior.sample(torch.Size([n_samples]))
    one_size = latent.library if latent.library_posterior is None else latent.library_posterior.mean
    size = one_size.expand(n_samples, *one_size.shape)
    draws = latent._replace(sample=module.transform(z), library=size)
    standard = Normal(torch.zeros_like(latent.posterior.loc), 1.0, validate_args=False)
    log_weights = (standard.log_prob(z) - latent.posterior.log_prob(z)).sum(dim=-1)
    for samples, few in in_parts(draws, batch.counts.shape[-1]):
        likelihood = decode(module, few, batch).log_prob(batch.counts)
        log_weights[samples] += likelihood.sum(dim=-1)
    if latent.library_posterior is not None:
        draws = draws._replace(library=latent.library_posterior.sample(torch.Size([n_samples])))
    return draws, log_weights.softmax(dim=0)


def chosen_draws(module: Module[Any], batch: Any) -> Latent:
    """One draw for each cell, [1, cells, latent], chosen among candidates by weight."""
    latent, weights = weighted_draws(module, batch, CANDIDATES)
    kept = torch.multinomial(weights.T, 1).T.unsqueeze(-1)
    return latent._replace(
        sample=latent.sample.take_along_dim(kept, dim=0),
        library=latent.library.take_along_dim(kept, dim=0),
    )
