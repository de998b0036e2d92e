"""Posteriors that a minified AnnData holds, in place of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.distributions import Normal

from cellvae.contracts import Latent


@runtime_checkable
class HasStoredPosterior(Protocol):
    """A batch of cells that may hold the posterior of each of them."""

    @property
    def latent_mean(self) -> Tensor | None:
        """Mean of the latent, [cells, latent]; None where the encoder is to be asked."""
        ...

    @property
    def latent_variance(self) -> Tensor | None:
        """Variance of the latent, [cells, latent]."""
        ...

    @property
    def library_mean(self) -> Tensor | None:
        """Logarithm of the size, or the mean of it where it is latent, [cells, 1]."""
        ...

    @property
    def library_variance(self) -> Tensor | None:
        """Variance of the logarithm of a latent size, [cells, 1]; None where it is observed."""
        ...


def stored_posterior(
    batch: HasStoredPosterior, transform: Callable[[Tensor], Tensor]
) -> Latent | None:
    """Posterior that a batch holds, and a draw from it; None if it holds none.

    Parameters
    ----------
    batch
        Cells.
    transform
        `transform` of the module.
    """
    mean, variance, size = batch.latent_mean, batch.latent_variance, batch.library_mean
    if mean is None or variance is None or size is None:
        return None
    posterior = Normal(mean, variance.sqrt(), validate_args=False)
    sample = transform(posterior.rsample())
    if batch.library_variance is None:
        return Latent(posterior, sample, size)
    of_size = Normal(size, batch.library_variance.sqrt(), validate_args=False)
    return Latent(posterior, sample, of_size.rsample(), of_size)
