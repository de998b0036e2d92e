"""Optimizer and learning-rate schedule from options."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.errors import InvalidOptionError
from cellvae.train.options.metric_names import metric_mode
from cellvae.train.options.train_options import OptimizerOptions, PlateauOptions

OPTIMIZER_DEFAULTS = ("cpu", torch.float32, torch.float32, torch.strided)
"""Device of weights, types of weights and gradients, layout of gradients."""


class ColumnMajorOptimizer(torch.optim.Optimizer):
    """Optimizer that goes through weights and gradients in the order of the weights' memory.

    Torch's fused kernels for a CPU take for granted that all have the same layout (results are
    wrong otherwise), and copy the gradients of transposed weights at every step.
    """

    kernel: ClassVar[Any] = None
    """Torch's own step of all weights at once, where it has one."""

    def _init_group(
        self, group: Any, parameters: list[Tensor], gradients: list[Tensor], *others: Any
    ) -> Any:
        result = super()._init_group(group, parameters, gradients, *others)  # type: ignore[misc]
        for i, parameter in enumerate(parameters):
            if gradients[i].stride() != parameter.stride():
                gradients[i] = torch.empty_like(parameter).copy_(gradients[i])
            if is_transposed(parameter):
                # AdamW of older versions has a word of its own among the lists.
                for part in (parameters, gradients, *(o for o in others if isinstance(o, list))):
                    if i < len(part) and part[i].shape == parameter.shape:
                        part[i] = part[i].t()
        return result

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step.

        On a CPU torch sorts parameters for half of the time that a small network takes; all of
        ours are of one kind, so that its kernel can be called at once.
        """
        # A scaler of gradients in half precision leaves its factor with the optimizer.
        scaled = any(getattr(self, name, None) is not None for name in ("grad_scale", "found_inf"))
        plain = closure is None and self.kernel is not None and not scaled
        lists = [self.group_tensors(group) for group in self.param_groups] if plain else [None]
        if any(of_group is None for of_group in lists):
            # Torch has hooks called around the step of every class: around this one is enough.
            usual: Any = super(ColumnMajorOptimizer, type(self)).step
            return (usual.__wrapped__ if hasattr(usual, "hooked") else usual)(self, closure)
        for group, of_group in zip(self.param_groups, lists, strict=True):
            if of_group is not None and of_group[0]:
                beta1, beta2 = group["betas"]
                torch._foreach_add_(of_group[-1], 1)
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
        """Forget the gradients, without torch's preparations for setting them to zero."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def group_tensors(self, group: Any) -> tuple[list[Tensor], ...] | None:
        """Weights, gradients, means, squares and steps; None where torch has more to look after."""
        unusual = group["amsgrad"] or group["differentiable"] or group["capturable"]
        if unusual or not group["fused"] or isinstance(group["lr"], Tensor):
            return None
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [])
        for parameter in group["params"]:
            gradient, state = parameter.grad, self.state.get(parameter)
            if gradient is None:
                continue
            kind = (parameter.device.type, parameter.dtype, gradient.dtype, gradient.layout)
            if not state or kind != OPTIMIZER_DEFAULTS:
                return None
            found = (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
            if any(part.stride() != parameter.stride() for part in found[1:]):
                return None
            transposed = is_transposed(parameter)
            for part, of_part in zip(found, lists, strict=False):
                of_part.append(part.t() if transposed else part)
            lists[4].append(state["step"])
        return lists


class Adam(ColumnMajorOptimizer, torch.optim.Adam):
    """Adam of any layout of the weights."""

    kernel = getattr(torch, "_fused_adam_", None)


class AdamW(ColumnMajorOptimizer, torch.optim.AdamW):
    """AdamW of any layout of the weights."""

    kernel = getattr(torch, "_fused_adamw_", None)


def is_transposed(weight: Tensor) -> bool:
    """Whether the columns of a matrix lie together in memory, and its rows do not."""
    return weight.ndim == 2 and not weight.is_contiguous() and weight.t().is_contiguous()


def make_optimizer(module: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """Optimizer of all parameters; those that are frozen stay until they are set free.

    Raises
    ------
    InvalidOptionError
        If only the decoder is to be trained and there is none, or nothing can be trained.
    """
    chosen: nn.Module = module
    if options.update_only_decoder:
        children = dict(module.named_children())
        if "decoder" not in children:
            raise InvalidOptionError(
                "update_only_decoder=True needs a network with a part named 'decoder'."
            )
        chosen = children["decoder"]
    # Frozen parameters too: a callback may set them free later.
    parameters = list(chosen.parameters())
    if not any(p.requires_grad for p in parameters):
        raise InvalidOptionError("No parameter of the model can be trained: all are frozen.")
    if options.optimizer_creator is not None:
        return options.optimizer_creator(parameters)
    kind = Adam if options.optimizer == "Adam" else AdamW
    # One kernel for all parameters, where the device has it; None lets torch choose.
    has_kernel = all(p.device.type in ("cpu", "cuda") for p in parameters)
    fused = (True if has_kernel else None) if options.fused_optimizer else False
    return kind(
        parameters, lr=options.lr, weight_decay=options.weight_decay, eps=options.eps, fused=fused
    )


def make_plateau(optimizer: torch.optim.Optimizer, options: PlateauOptions) -> ReduceLROnPlateau:
    """Schedule that lowers the learning rate when its metric stops improving."""
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
