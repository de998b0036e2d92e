"""Draws of the latent of cells and the weights that make them a sample of the marginal."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import Latent, Module
from cellvae.inference.draws import decode


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
    samples = torch.Size([n_samples])
    z = latent.posterior.sample(samples)
    ratio = (module.prior(batch).log_prob(z) - latent.posterior.log_prob(z)).double().sum(dim=-1)
    library = latent.library.expand(*samples, *latent.library.shape)
    of_size, prior_of_size = latent.library_posterior, module.library_prior(batch)
    if of_size is not None and prior_of_size is not None:
        library = of_size.sample(samples)
        logs = prior_of_size.log_prob(library) - of_size.log_prob(library)
        ratio += logs.double().sum(dim=-1)
    drawn = latent._replace(sample=module.transform(z), library=library)
    likelihood = decode(module, drawn, batch).log_prob(batch.counts)
    return ratio + likelihood.sum(dim=-1, dtype=torch.float64)
