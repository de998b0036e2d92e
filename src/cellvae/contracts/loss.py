"""Loss of a batch of cells, with its parts by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Loss(NamedTuple):
    """Loss of a batch: what the optimizer minimises, and the terms that are logged."""

    loss: Float[Tensor, ""]
    """Mean over cells, KL terms weighted; nats per cell."""
    reconstruction: Mapping[str, Float[Tensor, " cells"]]
    """Negative log-likelihood of each output by the name of its metric; nats."""
    kl_local: Mapping[str, Float[Tensor, " cells"]]
    """KL divergence of each local latent variable from its prior, unweighted; nats."""
    kl_global: Float[Tensor, ""]
    """KL divergence of the variables shared by all cells; nats."""
    extra_metrics: tuple[Tensor, ...] = ()
    """Further sums over cells, of any shape, for :meth:`Module.metrics_from_sums`."""
    latent: Float[Tensor, "cells latent"] | None = None
    """Sample of the latent that an adversarial classifier reads; None if there can be none."""

    @property
    def total_reconstruction(self) -> Float[Tensor, " cells"]:
        """Negative log-likelihood of all outputs; nats."""
        return sum_parts(self.reconstruction)

    @property
    def total_kl(self) -> Float[Tensor, " cells"]:
        """KL divergence of all local latent variables, unweighted; nats."""
        return sum_parts(self.kl_local)

    @property
    def n_cells(self) -> int:
        """Number of cells of the batch."""
        return next(iter(self.reconstruction.values())).shape[0]


def sum_parts(parts: Mapping[str, Tensor]) -> Tensor:
    """Sum of the parts of a loss."""
    first, *others = parts.values()
    for part in others:
        first = first + part
    return first
