"""Base class of the networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Generic, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from cellvae.contracts.loss import Loss
from cellvae.contracts.rows import B
from cellvae.core.frozen_weights import FrozenWeights


class Module(nn.Module, ABC, Generic[B]):
    """Base class of the networks: a loss of a batch of cells, and what training asks of it."""

    loss_parts: tuple[str, ...] = ()
    """Names of the parts of reconstruction and KL that are logged beside their totals."""
    extra_metric_names: tuple[str, ...] = ()
    """Names of further metrics; they are logged with the prefix `train_` or `validation_`."""
    loss_weights: Mapping[str, float] = MappingProxyType({})
    """Weights of terms of the loss that users can set in `plan_kwargs`, with their defaults."""
    n_cells: int = 1
    """Number of training cells, by which loss terms shared by all cells are divided."""
    cuda_graph_safe: bool = True
    """Whether the kernels of a step are independent of the data: a CUDA graph can capture it."""
    retrained_on_query: tuple[str, ...] = ()
    """Sub-networks that reference mapping always trains as a whole."""
    label_networks: tuple[str, ...] = ()
    """Sub-networks whose categories are labels, of which a query has no new ones."""
    frozen_by: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Layers that an option of reference mapping freezes, by its name, beside those that the
    sub-networks declare themselves.
    """
    frozen_weights: FrozenWeights = FrozenWeights()
    """Weights that training does not change."""
    sparse_fields: tuple[str, ...] = ("counts",)
    """Fields of a batch that may be sparse where the class has `accepts_sparse`."""
    n_latent: int = 0
    """Width of `Loss.latent`, which an adversarial classifier reads; 0 if there can be none."""
    n_adversarial_classes: int = 0
    """Number of classes of cells that an adversarial classifier tells apart."""
    adversarial: bool = False
    """Whether an adversarial classifier is trained along where the user does not say."""

    @abstractmethod
    def loss(self, batch: B, kl_weight: Float[Tensor, ""]) -> Loss:
        """Loss of a batch with the KL terms weighted."""

    def adversarial_targets(self, batch: B) -> Int[Tensor, " cells"]:
        """Class of each cell of `Loss.latent`, from 0 to `n_adversarial_classes` - 1."""
        raise NotImplementedError(f"{type(self).__name__} has no classes of cells.")

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
