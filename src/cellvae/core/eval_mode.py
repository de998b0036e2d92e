"""Eval mode of a network for a while, whatever mode its layers are in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Context in which a network is in eval mode.

    Afterwards each submodule is in the mode that it was in, so that layers that were frozen in eval
    mode stay so. Gradients are left to the caller: `torch.no_grad()`, `torch.inference_mode()`.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
