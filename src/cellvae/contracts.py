"""What a model is made of: rows of cells, blocks of steps, a latent, a loss, a module."""

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
    """Cells that are kept somewhere (memory, disk, device) and can be taken by number."""

    def __len__(self) -> int:
        """Count the cells."""
        ...

    def take(self, cells: Int[Tensor, " cells"]) -> B_co:
        """Batch of the cells with these numbers, in this order; numbers may repeat."""
        ...


class StepBlock(NamedTuple):
    """What Lightning sees as one batch: rows, and which of them make up each optimizer step."""

    rows: Rows[Any]
    steps: Int[Tensor, "steps cells"]


MIN_LIBRARY_SIZE = 1e-8
"""Library size of a cell without counts, so that its logarithm is finite."""


class Latent(NamedTuple):
    """Posterior of the latent variables of a batch of cells, and one draw from it."""

    posterior: Normal
    """q(z | x), [cells, latent]."""
    sample: Float[Tensor, "*samples cells latent"]
    """Draw in the space that the decoder reads."""
    log_library: Float[Tensor, "*samples cells 1"]
    """Natural logarithm of the size of each cell."""
    log_library_posterior: Normal | None = None
    """q(library | x), [cells, 1]; None where the library is observed."""


class Loss(NamedTuple):
    """Loss of a batch: what the optimizer minimises, and the parts that people read."""

    loss: Float[Tensor, ""]
    """Mean per cell, with weighted KL; nats per cell."""
    reconstruction: Float[Tensor, " cells"]
    """Negative log-likelihood of the counts; nats."""
    kl_local: Float[Tensor, " cells"]
    """Divergence of the local latent variables from their priors, not weighted; nats."""
    kl_global: Float[Tensor, ""]
    """Divergence of variables shared by all cells; nats."""
    extra_metrics: tuple[Tensor, ...] = ()
    """Further sums over cells, of any shape, which the module's `measures` makes metrics of."""


class Module(nn.Module, ABC, Generic[B]):
    """The mathematics of one model: tensors in, distributions and a loss out."""

    extra_metric_names: tuple[str, ...] = ()
    """Names of the metrics beside those of the loss; `train_` or `validation_` comes before."""
    loss_weights: Mapping[str, float] = MappingProxyType({})
    """Weights of parts of the loss that users can choose in `plan_kwargs`, and their defaults."""
    n_cells: int = 1
    """Cells that a run trains on, among which terms that all cells share are divided."""
    cuda_graph_safe: bool = True
    """Whether a step asks a device for the same whatever the numbers are, so it can be recorded."""
    latent_is_gaussian: bool = True
    """Whether the decoder reads the latent as it is drawn from the normal posterior."""
    frozen_weights: FrozenWeights = FrozenWeights()
    """What training leaves as it is."""

    @abstractmethod
    def encode(self, batch: B) -> Latent:
        """Posterior of the latent variables, and a draw from it."""

    @abstractmethod
    def decode(self, latent: Latent, batch: B) -> Distribution:
        """Distribution of the counts, [*samples, cells, genes]."""

    def decode_scale(self, latent: Latent, batch: B) -> Float[Tensor, "*samples cells genes"]:
        """Normalized expression alone, of what :meth:`decode` says."""
        counts: Any = self.decode(latent, batch)
        scale: Tensor = counts.get_normalized("scale")
        return scale

    @abstractmethod
    def loss(self, batch: B, kl_weight: Float[Tensor, ""]) -> Loss:
        """Loss of a batch with the KL terms weighted."""

    def transform(
        self, z: Float[Tensor, "*samples cells latent"]
    ) -> Float[Tensor, "*samples cells latent"]:
        """Draw of the normal posterior in the space that the decoder reads."""
        return z

    def prior(self, batch: B) -> Normal:
        """p(z) before the transformation, in a shape that broadcasts with [cells, latent]."""
        return Normal(0.0, 1.0, validate_args=False)

    def library_prior(self, batch: B) -> Normal | None:
        """p(library), [cells, 1]; None where the library is observed."""
        return None

    def metrics_from_sums(self, sums: tuple[Tensor, ...]) -> dict[str, Float[Tensor, ""]]:
        """Metrics named in `extra_metric_names`, of what losses carried, added up over an epoch."""
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

    def prepare(self, batch: B) -> None:
        """Make parameters that are created at first use; most modules have none."""


def to_device(batch: B, device: torch.device) -> B:
    """Batch with every tensor on a device; nothing is copied that is there already."""
    moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch)
    return type(batch)(*moved)
