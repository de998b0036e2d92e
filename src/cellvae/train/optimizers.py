"""Optimizer and learning-rate schedule from options."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cellvae.errors import InvalidOptionError
from cellvae.train.metrics import better
from cellvae.train.options import OptimizerOptions, PlateauOptions


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
    kind = torch.optim.Adam if options.optimizer == "Adam" else torch.optim.AdamW
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
