"""Training of a network with frozen weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from cellvae.contracts import Module
from cellvae.core.frozen_weights import WeightSlice


@contextmanager
def restore_frozen_after_step(module: Module[Any]) -> Iterator[None]:
    """Context in which `module.frozen_weights` do not change, whatever optimizer and callbacks do.

    Gradients of frozen weights are zero, so that they do not contribute to the gradient norm. The
    weights are restored after each step, since weight decay changes them without a gradient, and
    at the end.
    """
    frozen = module.frozen_weights
    if not frozen:
        yield
        return
    tensors_before = [tensor.clone() for tensor in frozen.tensors(module)]
    parameters = dict(module.named_parameters())
    parts = [(parameters[name], part) for name, part in frozen.slices.items()]
    slices_before = [[view.clone() for view in part.select(p.detach())] for p, part in parts]

    def zero_gradient(part: WeightSlice, parameter: Tensor) -> None:
        assert parameter.grad is not None
        for view in part.select(parameter.grad):
            view.zero_()

    def restore_slices(*_: object) -> None:
        for views, (parameter, part) in zip(slices_before, parts, strict=True):
            for i, view in enumerate(part.select(parameter.detach())):
                views[i] = views[i].to(view.device)
                view.copy_(views[i])

    hooks: list[Any] = [
        parameter.register_post_accumulate_grad_hook(partial(zero_gradient, part))
        for parameter, part in parts
    ]
    hooks.append(register_optimizer_step_post_hook(restore_slices))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for tensor, before in zip(frozen.tensors(module), tensors_before, strict=True):
                tensor.copy_(before)
