"""Types shared by all folders: rows of cells, step blocks, latent, loss, and the base network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from cellvae.core.frozen_weights import FrozenWeights

B = TypeVar("B", bound=tuple)
B_co = TypeVar("B_co", bound=tuple, covariant=True)


@runtime_checkable
class Rows(Protocol[B_co]):
    """Cells that are stored in memory, on disk or on a device, and read in batches by index."""

    def __len__(self) -> int:
        """Return the number of cells."""
        ...

    def take(self, cells: Int[Tensor, " cells"]) -> B_co:
        """Batch of the cells at these indices, in this order; indices may repeat."""
        ...


class StepBlock(NamedTuple):
    """One batch for Lightning: rows, and the cell indices of each of several optimizer steps."""

    rows: Rows[Any]
    steps: Int[Tensor, "steps cells"]


MIN_LIBRARY_SIZE = 1e-8
"""Library size of a cell without counts, so that its logarithm is finite."""


class Latent(NamedTuple):
    """Posterior of the latent variables of a batch of cells, and one sample from it."""

    posterior: Normal
    """q(z | x), [cells, latent]."""
    sample: Float[Tensor, "*samples cells latent"]
    """Sample from the posterior, transformed to the input space of the decoder."""
    log_library: Float[Tensor, "*samples cells 1"]
    """Natural logarithm of the library size of each cell."""
    log_library_posterior: Normal | None = None
    """q(log library size | x), [cells, 1]; None if the library size is observed."""


class Loss(NamedTuple):
    """Loss of a batch: what the optimizer minimises, and the terms that are logged."""

    loss: Float[Tensor, ""]
    """Mean over cells, KL terms weighted; nats per cell."""
    reconstruction: Float[Tensor, " cells"]
    """Negative log-likelihood of the counts; nats."""
    kl_local: Float[Tensor, " cells"]
    """KL divergence of the local latent variables from their priors, unweighted; nats."""
    kl_global: Float[Tensor, ""]
    """KL divergence of the variables shared by all cells; nats."""
    extra_metrics: tuple[Tensor, ...] = ()
    """Further sums over cells, of any shape, for :meth:`Module.metrics_from_sums`."""
    latent: Float[Tensor, "cells latent"] | None = None
    """Sample of the latent variables, which an adversarial classifier reads; None for no latent."""


class Module(nn.Module, ABC, Generic[B]):
    """Base class of the networks: tensors in, distributions and a loss out."""

    extra_metric_names: tuple[str, ...] = ()
    """Names of further metrics; they are logged with the prefix `train_` or `validation_`."""
    loss_weights: Mapping[str, float] = MappingProxyType({})
    """Weights of terms of the loss that users can set in `plan_kwargs`, with their defaults."""
    n_cells: int = 1
    """Number of training cells, by which loss terms shared by all cells are divided."""
    cuda_graph_safe: bool = True
    """Whether the kernels of a step are independent of the data: a CUDA graph can capture it."""
    latent_is_gaussian: bool = True
    """Whether the decoder reads samples of the normal posterior without a transformation."""
    retrained_on_query: tuple[str, ...] = ()
    """Sub-networks that reference mapping always trains as a whole."""
    label_networks: tuple[str, ...] = ()
    """Sub-networks whose categories are labels, of which a query has no new ones."""
    frozen_weights: FrozenWeights = FrozenWeights()
    """Weights that training does not change."""
    adversarial: bool = False
    """Whether training has an adversarial classifier, unless the user says otherwise."""
    n_adversarial_classes: int = 0
    """Number of classes that an adversarial classifier tells apart; 0 if cells have none."""
    n_latent: int = 0
    """Width of `Loss.latent`; 0 if there is none."""

    def adversarial_targets(self, batch: B) -> Int[Tensor, " cells"]:
        """Class of each cell of `Loss.latent`, which an adversarial classifier predicts from it."""
        raise NotImplementedError(f"{type(self).__name__} has no classes of cells.")

    @abstractmethod
    def encode(self, batch: B) -> Latent:
        """Posterior of the latent variables, and a sample from it."""

    @abstractmethod
    def decode(self, latent: Latent, batch: B) -> Distribution:
        """Distribution of the counts, [*samples, cells, genes]."""

    def decode_scale(self, latent: Latent, batch: B) -> Float[Tensor, "*samples cells genes"]:
        """Normalized expression, a parameter of the distribution that :meth:`decode` returns."""
        counts: Any = self.decode(latent, batch)
        scale: Tensor = counts.get_normalized("scale")
        return scale

    @abstractmethod
    def loss(self, batch: B, kl_weight: Float[Tensor, ""]) -> Loss:
        """Loss of a batch with the KL terms weighted."""

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

    def metrics_from_sums(self, sums: tuple[Tensor, ...]) -> dict[str, Float[Tensor, ""]]:
        """Metrics of an epoch, by name, from the `extra_metrics` of its losses, summed."""
        return {}

    def freeze(self, frozen_weights: FrozenWeights) -> None:
        """Freeze weights: no later training changes them."""
        self.frozen_weights = frozen_weights
        frozen_weights.freeze_in(self)

    def train(self, mode: bool = True) -> Self:
        """Set training or eval mode; layers of `frozen_weights.eval_modules` stay in eval mode."""
        super().train(mode)
        self.frozen_weights.set_eval_mode_in(self)
        return self


def to_device(batch: B, device: torch.device) -> B:
    """Batch with all its tensors on a device; tensors that are there are not copied."""
    moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch)
    return type(batch)(*moved)
