"""Optimizers for weights of any memory layout, and the learning rate schedule."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.core.platform.torch_adapter import add_all_
from cellvae.errors import InvalidOptionError
from cellvae.train.options.metric_names import metric_mode
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
    PlateauOptions,
)

KERNEL_TYPES = ("cpu", torch.float32, torch.float32, torch.strided)
"""Device and dtype of weights, dtype and layout of gradients for which the kernel is called."""


class ColumnMajorOptimizer(torch.optim.Optimizer):
    """Optimizer whose fused kernel reads weights and gradients in the weights' memory order.

    Torch's fused CPU kernels assume that all tensors have the same strides (results are wrong
    otherwise), and copy the gradients of transposed weights at every step.
    """

    kernel: ClassVar[Any] = None
    """Torch's fused kernel; None if this version of torch has none."""

    def _init_group(
        self, group: Any, parameters: list[Tensor], gradients: list[Tensor], *others: Any
    ) -> Any:
        result = super()._init_group(group, parameters, gradients, *others)  # type: ignore[misc]
        for i, parameter in enumerate(parameters):
            if gradients[i].stride() != parameter.stride():
                gradients[i] = torch.empty_like(parameter).copy_(gradients[i])
            if is_transposed(parameter):
                # AdamW of older versions of torch passes a boolean among the lists.
                for part in (parameters, gradients, *(o for o in others if isinstance(o, list))):
                    if i < len(part) and part[i].shape == parameter.shape:
                        part[i] = part[i].t()
        return result

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step.

        On a CPU torch spends half of the step of a small network on sorting its parameters by
        device and dtype; ours have one of each, so that the kernel is called directly.
        """
        # The gradient scaler of half precision stores its factor in the optimizer.
        scaled = any(getattr(self, name, None) is not None for name in ("grad_scale", "found_inf"))
        plain = closure is None and self.kernel is not None and not scaled
        lists = [self.group_tensors(group) for group in self.param_groups] if plain else [None]
        if any(of_group is None for of_group in lists):
            # Torch wraps the step of every class to call hooks; this method is wrapped already.
            usual: Any = super(ColumnMajorOptimizer, type(self)).step
            return (usual.__wrapped__ if hasattr(usual, "hooked") else usual)(self, closure)
        for group, of_group in zip(self.param_groups, lists, strict=True):
            if of_group is not None and of_group[0]:
                beta1, beta2 = group["betas"]
                add_all_(of_group[-1], 1)
                self.kernel(
                    *of_group[:4],
                    [],
                    of_group[4],
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=group["maximize"],
                )
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to None, without the overhead of torch's method."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def group_tensors(self, group: Any) -> tuple[list[Tensor], ...] | None:
        """Weights, gradients, both moments and steps; None if torch's own step is needed."""
        unusual = group["amsgrad"] or group["differentiable"] or group["capturable"]
        if unusual or not group["fused"] or isinstance(group["lr"], Tensor):
            return None
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [])
        for parameter in group["params"]:
            gradient, state = parameter.grad, self.state.get(parameter)
            if gradient is None:
                continue
            types = (parameter.device.type, parameter.dtype, gradient.dtype, gradient.layout)
            if not state or types != KERNEL_TYPES:
                return None
            tensors = (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
            if any(part.stride() != parameter.stride() for part in tensors[1:]):
                return None
            transposed = is_transposed(parameter)
            for part, of_part in zip(tensors, lists, strict=False):
                of_part.append(part.t() if transposed else part)
            lists[4].append(state["step"])
        return lists


class Adam(ColumnMajorOptimizer, torch.optim.Adam):
    """Adam for weights of any memory layout."""

    kernel = getattr(torch, "_fused_adam_", None)


class AdamW(ColumnMajorOptimizer, torch.optim.AdamW):
    """AdamW for weights of any memory layout."""

    kernel = getattr(torch, "_fused_adamw_", None)


def is_transposed(weight: Tensor) -> bool:
    """Whether a matrix is stored in column-major order."""
    return weight.ndim == 2 and not weight.is_contiguous() and weight.t().is_contiguous()


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
