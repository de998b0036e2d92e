"""Optimizers for weights of any memory layout, and the learning rate schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, is_tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.errors import InvalidOptionError
from cellvae.kernels import AdamTable, AdamWeights, adam_step, has_adam_kernel
from cellvae.kernels.dispatch import can_compile
from cellvae.settings import settings
from cellvae.train.options.metric_names import metric_mode
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
)

MIN_KERNEL_SIZE = 1 << 16
"""Number of weights below which loading the kernel of the step does not pay."""


class ColumnMajorOptimizer(torch.optim.Optimizer):
    """Optimizer whose fused kernel reads weights and gradients in the weights' memory order.

    On the CPU a step is one compiled kernel (:func:`~cellvae.kernels.adam_step`), from the second
    one on. Otherwise it is torch's; torch's fused CPU kernels assume that all tensors have the same
    strides (results are wrong otherwise), and copy the gradients of transposed weights at every
    step.
    """

    is_decoupled = False
    """Whether weight decay is decoupled from the gradient."""
    tables: tuple[AdamTable, ...] = ()
    """Weights of each group in the latest step by the kernel, of which a copy has none."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step; the loss, if a closure computes it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.find_tables()
        if groups is None:
            # Hooks of the optimizer, which wrap every `step`, run once.
            inspect.unwrap(super().step)(self)
            return loss
        for group, (table, gradients) in zip(self.param_groups, groups, strict=True):
            adam_step(
                table,
                gradients,
                lr=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                is_decoupled=self.is_decoupled,
            )
        return loss

    def find_tables(self) -> list[tuple[AdamTable, list[Tensor]]] | None:
        """Weights with their gradients in each group; None if the kernel cannot make the step."""
        if settings.kernels == "torch" or hasattr(self, "grad_scale") or hasattr(self, "found_inf"):
            return None
        if any(map(is_unsupported, self.param_groups)):
            return None
        found: list[tuple[AdamTable, list[Tensor]]] = []
        for i, group in enumerate(self.param_groups):
            table = self.tables[i] if i < len(self.tables) else None
            gradients = None if table is None else table.read_gradients(group["params"], self.state)
            if table is None or gradients is None:
                table = make_table(group["params"], self.state)
                if table is None:
                    return None
                gradients = table.read_gradients(group["params"], self.state)
            if gradients is None:
                return None
            found.append((table, gradients))
        self.tables = tuple(table for table, _ in found)
        n_weights = sum(table.n_elements for table in self.tables)
        return found if n_weights >= MIN_KERNEL_SIZE and can_compile("adam_step") else None

    def _init_group(
        self, group: Any, parameters: list[Tensor], gradients: list[Tensor], *others: Any
    ) -> Any:
        result = super()._init_group(group, parameters, gradients, *others)  # type: ignore[misc]
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            stride = parameter.stride()
            if gradient.stride() != stride:
                gradients[i] = torch.empty_like(parameter).copy_(gradient)
            if len(stride) == 2 and stride[0] < stride[1]:
                # AdamW of older versions of torch passes a boolean among the lists.
                for part in (parameters, gradients, *(o for o in others if isinstance(o, list))):
                    if i < len(part) and part[i].shape == parameter.shape:
                        part[i] = part[i].t()
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients; as torch's, without an entry for the profiler."""
        if not set_to_none:
            return super().zero_grad(set_to_none)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        return None


class Adam(ColumnMajorOptimizer, torch.optim.Adam):
    """Adam for weights of any memory layout."""


class AdamW(ColumnMajorOptimizer, torch.optim.AdamW):
    """AdamW for weights of any memory layout."""

    is_decoupled = True


def is_unsupported(group: Mapping[str, Any]) -> bool:
    """Whether a group of parameters has options that :func:`~cellvae.kernels.adam_step` lacks."""
    unsupported = group["amsgrad"] or group["maximize"] or group["capturable"]
    return unsupported or group["differentiable"] or not group["fused"] or is_tensor(group["lr"])


def make_table(
    parameters: Sequence[Tensor], state: Mapping[Tensor, Mapping[str, Tensor]]
) -> AdamTable | None:
    """Table of the parameters with a gradient; None if the kernel does not support one of them."""
    weights: list[AdamWeights] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        entry = state.get(parameter)
        if not entry:
            return None
        weights.append(AdamWeights(parameter, entry["exp_avg"], entry["exp_avg_sq"], entry["step"]))
    return AdamTable(weights) if all(map(has_adam_kernel, weights)) else None


def make_optimizer(module: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """Make the optimizer of all parameters, including those that may be unfrozen later.

    Raises
    ------
    InvalidOptionError
        If only the decoder is to be trained and there is none, or nothing can be trained.
    """
    trained: nn.Module = module
    if options.update_only_decoder:
        children = dict(module.named_children())
        if "decoder" not in children:
            raise InvalidOptionError(
                "update_only_decoder=True needs a network with a part named 'decoder'."
            )
        trained = children["decoder"]
    # Frozen parameters too: a callback may unfreeze them later.
    parameters = list(trained.parameters())
    if not any(p.requires_grad for p in parameters):
        raise InvalidOptionError("No parameter of the model can be trained: all are frozen.")
    if options.optimizer_creator is not None:
        return options.optimizer_creator(parameters)
    optimizer = Adam if options.optimizer == "Adam" else AdamW
    # One fused kernel for all parameters if the device has it; None lets torch choose.
    has_kernel = all(p.device.type in ("cpu", "cuda") for p in parameters)
    fused = (True if has_kernel else None) if options.fused_optimizer else False
    return optimizer(
        parameters, lr=options.lr, weight_decay=options.weight_decay, eps=options.eps, fused=fused
    )


def make_plateau(optimizer: torch.optim.Optimizer, options: PlateauOptions) -> ReduceLROnPlateau:
    """Make the schedule that lowers the learning rate when its metric stops improving."""
    return ReduceLROnPlateau(
        optimizer,
        mode=metric_mode(options.metric, "auto"),
        factor=options.factor,
        patience=options.patience,
        threshold=options.threshold,
        threshold_mode="abs",
        min_lr=options.minimum,
    )


def align_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of an optimizer the strides of its parameters.

    Fused optimizers read both in the order of the memory.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
