"""What a step is, and the ordinary one: a gradient step of the loss of the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cellvae.contracts import Loss, Module
from cellvae.train.loop.optimizers import make_optimizer
from cellvae.train.options.optimizer_options import OptimizerOptions

LossFunction = Callable[[Any, Tensor], Loss]
Average = Callable[[Tensor], Tensor]
"""Function that averages a tensor over the processes of a run."""


class UpdateHooks(Protocol):
    """What runs within an update."""

    def before_backward(self, loss: Loss) -> None:
        """Run when the loss has been computed."""
        ...

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Run when the gradients have been computed."""
        ...


class Step(Protocol):
    """One step of training: a loss, an update of the weights, and what the step itself trains.

    :meth:`update` makes a whole step. Where Lightning makes it, :meth:`loss` is what it minimises,
    and :meth:`finish` is called after its optimizer. Everything that a step trains beside the
    module is its own: it is in :meth:`state_dict`, not among the weights of the model.

    Attributes
    ----------
    own_optimizers
        Optimizers beside that of the module; they have no schedule.
    metric_names
        Names of the metrics of an epoch that the step measures.
    own_modules
        Networks beside the module.
    is_on
        Whether the step trains something beside the module, at the present KL weight.
    """

    own_optimizers: tuple[torch.optim.Optimizer, ...]
    own_modules: tuple[nn.Module, ...]
    metric_names: tuple[str, ...]
    is_on: bool

    def make_optimizers(
        self, module: Module[Any], options: OptimizerOptions
    ) -> list[torch.optim.Optimizer]:
        """Make the optimizer of the module, which is the first, and those of the step."""
        ...

    def loss(self, batch: Any, kl_weight: Float[Tensor, ""]) -> Loss:
        """Loss of a training batch, which the optimizer of the module minimises."""
        ...

    def update(
        self,
        batch: Any,
        kl_weight: Float[Tensor, ""],
        optimizer: torch.optim.Optimizer,
        hooks: UpdateHooks,
    ) -> Loss:
        """Make the step of a batch, with the optimizer of the module; its loss before the step."""
        ...

    def finish(self, average: Average | None = None) -> None:
        """Update what the step trains, after the optimizer of the module has made its step."""
        ...

    def leave_out(self, bad: Tensor) -> None:
        """Change nothing in :meth:`finish` if `bad` is true, since something was not finite."""
        ...

    def set_kl_weight(self, weight: float) -> None:
        """Note the KL weight of the next steps."""
        ...

    def set_share(self, share: float) -> None:
        """Note the cells of this process in the next batch, as a fraction of the mean over all."""
        ...

    def changed_tensors(self) -> list[Tensor]:
        """Tensors that a step changes, beside module, optimizers and their parameters."""
        ...

    def begin_epoch(self, *, only_finite: bool) -> None:
        """Set the metrics to zero; `only_finite` leaves out batches that are not finite."""
        ...

    def metrics(self, add_up: Average | None = None) -> dict[str, Float[Tensor, ""]]:
        """Metrics of the epoch so far, on the device; empty if there are none.

        Parameters
        ----------
        add_up
            Adds a tensor up over the processes of a run.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """State of what the step trains beside the module; empty if that is nothing."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        ...

    def can_load(self, state: Mapping[str, Any]) -> bool:
        """Whether a state is one of this step, with the same shapes."""
        ...


class GradientStep:
    """Step of the optimizer along the gradient of the loss of the module.

    Parameters
    ----------
    module
        The network and its loss.
    loss
        `module.loss`, compiled or not.
    """

    metric_names: tuple[str, ...] = ()

    def __init__(self, module: Module[Any], loss: LossFunction | None = None) -> None:
        self.module = module
        self.module_loss: LossFunction = module.loss if loss is None else loss
        self.own_optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self.own_modules: tuple[nn.Module, ...] = ()
        self.is_on = False

    def make_optimizers(
        self, module: Module[Any], options: OptimizerOptions
    ) -> list[torch.optim.Optimizer]:
        """Make the optimizer of the module."""
        return [make_optimizer(module, options)]

    def loss(self, batch: Any, kl_weight: Float[Tensor, ""]) -> Loss:
        """Loss of the module."""
        return self.module_loss(batch, kl_weight)

    def update(
        self,
        batch: Any,
        kl_weight: Float[Tensor, ""],
        optimizer: torch.optim.Optimizer,
        hooks: UpdateHooks,
    ) -> Loss:
        """Make a step; all of it is queued on the device and nothing is read back."""
        loss = self.loss(batch, kl_weight)
        optimizer.zero_grad()
        hooks.before_backward(loss)
        loss.loss.backward()
        hooks.before_step(optimizer)
        optimizer.step()
        self.finish()
        return loss

    def finish(self, average: Average | None = None) -> None:
        """Nothing is trained beside the module."""

    def leave_out(self, bad: Tensor) -> None:
        """Nothing is trained beside the module."""

    def set_kl_weight(self, weight: float) -> None:
        """Nothing depends on it beside the loss."""

    def set_share(self, share: float) -> None:
        """Nothing depends on it beside the loss."""

    def changed_tensors(self) -> list[Tensor]:
        """No tensors."""
        return []

    def begin_epoch(self, *, only_finite: bool) -> None:
        """There are no metrics."""

    def metrics(self, add_up: Average | None = None) -> dict[str, Float[Tensor, ""]]:
        """No metrics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """No state."""

    def can_load(self, state: Mapping[str, Any]) -> bool:
        """Whether a state is empty, as that of this step is."""
        return not state
