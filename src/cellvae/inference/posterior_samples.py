"""Posterior samples of the latent of a batch of cells, and their decoded distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor

from cellvae.contracts import GenerativeModule, Latent, map_samples
from cellvae.distributions.protocol import CountDistribution

L = TypeVar("L", bound=Latent)

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
    module: GenerativeModule[Any],
    batch: Any,
    n_samples: int = 1,
    transform_batch: int | None = None,
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


def sample_latent(module: GenerativeModule[Any], batch: Any, n_samples: int = 1) -> Latent:
    """Posterior of cells with samples of all latent variables, [samples, cells, ...]."""
    latent = module.encode(batch)
    if n_samples == 1:
        return map_samples(lambda values: values.unsqueeze(0), latent)
    sampled: Latent = module.sample_latent(latent, n_samples)
    return sampled


def latent_to_decode(module: Any, batch: Any, n_samples: int, use_z_mean: bool) -> Any:
    """Posterior of a batch of cells with samples, or the mean in place of each of them."""
    if not use_z_mean:
        return sample_latent(module, batch, n_samples)
    latent = module.encode(batch)
    latent = latent._replace(sample=module.transform(latent.posterior.loc))
    return map_samples(lambda values: values.expand(n_samples, *values.shape), latent)


def decode_samples(
    module: GenerativeModule[Any],
    latent: Latent,
    batch: Any,
    transform_batch: int | None = None,
    output: str | None = None,
) -> CountDistribution:
    """Distribution of an output for posterior samples, as if the cells came from a batch.

    Parameters
    ----------
    module, latent, batch
        As in :func:`sample_posterior`.
    transform_batch
        Code of the batch; None for that of each cell.
    output
        Name of the output; None for the first.
    """
    if transform_batch is not None:
        batch = module.replace_batch(batch, transform_batch)
    counts: Any = module.decode_output(latent, batch, output or module.outputs[0])
    return counts


def iter_chunks(latent: L, n_genes: int) -> Iterator[tuple[slice, L]]:
    """Posterior samples in chunks that can be decoded with little memory."""
    n_samples, n_cells = latent.sample.shape[:2]
    step = max(1, MAX_DECODED_ELEMENTS // (n_cells * n_genes))
    for first in range(0, n_samples, step):
        part = slice(first, min(first + step, n_samples))
        yield part, slice_samples(latent, part)


def slice_samples(latent: L, samples: slice) -> L:
    """Some of the posterior samples, [samples, cells, ...]."""
    return map_samples(lambda values: values[samples], latent)


def first_observed(module: GenerativeModule[Any], batch: Any) -> Tensor:
    """Measured values of the first output of a module, [cells, features]."""
    values: Tensor = module.observed_values(batch)[module.outputs[0]]
    return values


class SampleSums:
    """Values of a batch of cells that come in chunks of samples: their mean, or all of them.

    Parameters
    ----------
    n_samples
        Number of samples.
    averaged
        Whether they are averaged.
    """

    def __init__(self, n_samples: int, *, averaged: bool) -> None:
        self.n_samples = n_samples
        self.averaged = averaged
        self.values: Tensor | None = None

    def add(self, samples: slice, values: Tensor) -> None:
        """Add values of some samples, [samples, cells, ...], to those that are there."""
        if self.averaged:
            part = values.sum(dim=0) / self.n_samples
            self.values = part if self.values is None else self.values.add_(part)
            return
        if self.values is None:
            shape = (values.shape[1], self.n_samples, *values.shape[2:])
            self.values = values.new_zeros(shape)
        self.values[:, samples] += values.transpose(0, 1)

    def result(self) -> Tensor:
        """Mean, [cells, ...], or all samples, [cells, samples, ...]."""
        assert self.values is not None
        return self.values
