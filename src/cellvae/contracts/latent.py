"""Latent variables of a batch of cells: their posteriors, and samples of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

MIN_LIBRARY_SIZE = 1e-8
"""Library size of a cell without counts, so that its logarithm is finite."""


class Latent(Protocol):
    """Posterior of the latent variables of a batch of cells, and samples from it.

    Every module has a NamedTuple of its own with at least these two fields. Its normal
    distributions are posteriors, [cells, ...], and its tensors are samples, [*samples, cells, ...].
    """

    @property
    def posterior(self) -> Normal:
        """q(z | x), [cells, latent]."""
        ...

    @property
    def sample(self) -> Tensor:
        """Sample from it in the input space of the decoder, [*samples, cells, latent]."""
        ...


class SampledNormal(Normal):
    """Normal posterior of cells whose divergence was computed together with a sample.

    Parameters
    ----------
    loc, scale
        Mean and standard deviation.
    kl
        KL divergence from the standard normal distribution, in nats, summed over dimensions.
    """

    def __init__(
        self,
        loc: Float[Tensor, "cells latent"],
        scale: Float[Tensor, "cells latent"],
        kl: Float[Tensor, " cells"],
    ) -> None:
        super().__init__(loc, scale, validate_args=False)
        self.kl = kl


class CountLatent(NamedTuple):
    """Posterior of the latent variables of a batch of cells and of their library sizes."""

    posterior: Normal
    """q(z | x), [cells, latent]."""
    sample: Float[Tensor, "*samples cells latent"]
    """Sample from the posterior, transformed to the input space of the decoder."""
    log_library: Float[Tensor, "*samples cells 1"]
    """Natural logarithm of the library size of each cell."""
    log_library_posterior: Normal | None = None
    """q(log library size | x), [cells, 1]; None if the library size is observed."""


L = TypeVar("L", bound=Latent)


def map_latent(function: Callable[..., Tensor], *latents: L) -> L:
    """Latent whose tensors, parameters of posteriors included, are results of a function.

    Parameters
    ----------
    function
        Function of the corresponding tensors of all latents.
    *latents
        Latents of one type.
    """

    def apply(*values: Any) -> Any:
        if values[0] is None:
            return None
        if isinstance(values[0], Normal):
            loc = function(*(value.loc for value in values))
            scale = function(*(value.scale for value in values))
            return Normal(loc, scale, validate_args=False)
        return function(*values)

    fields: Any = latents
    result: L = type(fields[0])(*(apply(*values) for values in zip(*fields, strict=True)))
    return result


def map_samples(function: Callable[[Tensor], Tensor], latent: L) -> L:
    """Latent whose samples are results of a function; its posteriors stay as they are."""
    fields: Any = latent
    values = (function(value) if isinstance(value, Tensor) else value for value in fields)
    result: L = type(fields)(*values)
    return result
