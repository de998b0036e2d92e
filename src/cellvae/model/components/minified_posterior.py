"""Posteriors stored in a minified AnnData, used in place of the encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import CountLatent


@runtime_checkable
class HasStoredPosterior(Protocol):
    """A batch of cells that may have the stored posterior of each cell."""

    @property
    def latent_mean(self) -> Tensor | None:
        """Mean of the latent, [cells, latent]; None if the encoder computes it."""
        ...

    @property
    def latent_variance(self) -> Tensor | None:
        """Variance of the latent, [cells, latent]."""
        ...

    @property
    def library_mean(self) -> Tensor | None:
        """Log library size, or its posterior mean if it is latent, [cells, 1]."""
        ...

    @property
    def library_variance(self) -> Tensor | None:
        """Variance of a latent log library size, [cells, 1]; None if it is observed."""
        ...


def stored_posterior(
    batch: HasStoredPosterior, transform: Callable[[Tensor], Tensor]
) -> CountLatent | None:
    """Stored posterior of a batch, and a sample from it; None if none is stored.

    Parameters
    ----------
    batch
        Cells.
    transform
        `transform` of the module.
    """
    mean, variance, log_library = batch.latent_mean, batch.latent_variance, batch.library_mean
    if mean is None or variance is None or log_library is None:
        return None
    posterior = Normal(mean, variance.sqrt(), validate_args=False)
    sample = transform(posterior.rsample())
    if batch.library_variance is None:
        return CountLatent(posterior, sample, log_library)
    library_posterior = Normal(log_library, batch.library_variance.sqrt(), validate_args=False)
    return CountLatent(posterior, sample, library_posterior.rsample(), library_posterior)
