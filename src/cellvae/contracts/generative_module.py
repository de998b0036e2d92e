"""Base class of the networks of variational autoencoders."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Distribution, Normal

from cellvae.contracts.latent import Latent
from cellvae.contracts.module import Module
from cellvae.contracts.rows import B


class GenerativeModule(Module[B]):
    """Network of a variational autoencoder: tensors in, distributions and a loss out."""

    outputs: tuple[str, ...] = ("rna",)
    """Names of the decoded distributions, one for each feature axis of the data, in its order."""
    observed_fields: tuple[str, ...] = ("counts",)
    """Fields of a batch with the measured values of each output; the decoder does not read them."""
    stored_sizes: tuple[str, ...] = ()
    """Sizes of a cell that are computed from counts, fields of latent and batch of the same names.

    A minified AnnData stores them beside the posterior.
    """
    latent_is_gaussian: bool = True
    """Whether the decoder reads samples of the normal posterior without a transformation."""

    @abstractmethod
    def encode(self, batch: B) -> Latent:
        """Posterior of the latent variables, and a sample from it."""

    @abstractmethod
    def decode(self, latent: Any, batch: B) -> dict[str, Distribution]:
        """Distribution of each output, [*samples, cells, features]."""

    def decode_output(self, latent: Any, batch: B, output: str) -> Distribution:
        """Distribution of one output; a module that can leave out the others does."""
        return self.decode(latent, batch)[output]

    def observed_values(self, batch: B) -> dict[str, Any]:
        """Measured values of each output, [cells, features], from `observed_fields`."""
        fields = zip(self.outputs, self.observed_fields, strict=True)
        return {output: getattr(batch, field) for output, field in fields}

    def measurement_masks(self, batch: B) -> dict[str, Bool[Tensor, "#cells #features"]]:
        """Which values of an output were measured; without an entry, all of them."""
        return {}

    def decode_scale(self, latent: Any, batch: B) -> Float[Tensor, "*samples cells genes"]:
        """Normalized values of the first output, a parameter of its distribution."""
        counts: Any = self.decode(latent, batch)[self.outputs[0]]
        scale: Tensor = counts.get_normalized("scale")
        return scale

    def log_likelihoods(self, latent: Any, batch: B) -> dict[str, Float[Tensor, "*samples cells"]]:
        """Log-likelihood of the measured values of each cell, in double precision; nats."""
        observed, measured = self.observed_values(batch), self.measurement_masks(batch)
        sums = {}
        for name, decoded in self.decode(latent, batch).items():
            log_prob = decoded.log_prob(observed[name])
            if name in measured:
                log_prob = torch.where(measured[name], log_prob, 0.0)
            sums[name] = log_prob.sum(dim=-1, dtype=torch.float64)
        return sums

    def transform(
        self, z: Float[Tensor, "*samples cells latent"]
    ) -> Float[Tensor, "*samples cells latent"]:
        """Transform samples of the normal posterior to the input space of the decoder."""
        return z

    def prior(self, batch: B) -> Normal:
        """p(z) before :meth:`transform`, in a shape that broadcasts with [cells, latent]."""
        return Normal(0.0, 1.0, validate_args=False)

    def library_prior(self, batch: B) -> Normal | None:
        """p(log library size), [cells, 1]; None if the library size is observed."""
        return None

    def sample_latent(self, latent: Any, n_samples: int) -> Any:
        """Latent with new samples of all its variables, [samples, cells, ...].

        Variables without a posterior of their own are repeated.
        """
        return self.sample_with_log_ratio(latent, None, n_samples)[0]

    def sample_with_log_ratio(
        self, latent: Any, batch: B | None, n_samples: int
    ) -> tuple[Any, Float[Tensor, "samples cells"]]:
        """New samples as of :meth:`sample_latent`, and log p(z) / q(z | x) of each; nats.

        Without a batch, which the priors may depend on, the ratios are zero.
        """
        samples = torch.Size([n_samples])
        z = latent.posterior.sample(samples)
        logs = z.new_zeros(z.shape[:-1], dtype=torch.float64)
        if batch is not None:
            ratio = self.prior(batch).log_prob(z) - latent.posterior.log_prob(z)
            logs = ratio.double().sum(dim=-1)
        library, posterior = latent.log_library, latent.log_library_posterior
        prior = None if batch is None else self.library_prior(batch)
        if posterior is None:
            library = library.expand(*samples, *library.shape)
        else:
            library = posterior.sample(samples)
        if posterior is not None and prior is not None:
            ratio = prior.log_prob(library) - posterior.log_prob(library)
            logs += ratio.double().sum(dim=-1)
        return latent._replace(sample=self.transform(z), log_library=library), logs

    def replace_batch(self, batch: B, codes: int | Int[Tensor, "cells 1"]) -> B:
        """Batch of cells as if they came from other experimental batches, given by their codes."""
        current: Tensor = batch.batch  # type: ignore[attr-defined]
        if isinstance(codes, int):
            codes = torch.full_like(current, codes)
        replaced: B = batch._replace(batch=codes)  # type: ignore[attr-defined]
        return replaced
