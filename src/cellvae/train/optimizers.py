"""Optimizer and learning-rate schedule from options."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.errors import InvalidOptionError
from cellvae.train.metrics import better
from cellvae.train.options import OptimizerOptions, PlateauOptions


class AsLaidOut(torch.optim.Optimizer):
    """Optimizer that goes through weights and gradients in the order of the weights' memory.

    Torch's fused kernels for a CPU take for granted that all have the same layout (results are
    wrong otherwise), and copy the gradients of transposed weights at every step.
    """

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


class Adam(AsLaidOut, torch.optim.Adam):
    """Adam of any layout of the weights."""


class AdamW(AsLaidOut, torch.optim.AdamW):
    """AdamW of any layout of the weights."""


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
    fused = True if all(p.device.type in ("cpu", "cuda") for p in parameters) else None
    return kind(
        parameters, lr=options.lr, weight_decay=options.weight_decay, eps=options.eps, fused=fused
    )


def make_plateau(optimizer: torch.optim.Optimizer, options: PlateauOptions) -> ReduceLROnPlateau:
    """Schedule that lowers the learning rate when its metric stops improving."""
    return ReduceLROnPlateau(
        optimizer,
        mode=better(options.metric, "auto"),
        factor=options.factor,
        patience=options.patience,
        threshold=options.threshold,
        threshold_mode="abs",
        min_lr=options.minimum,
    )
