"""Training of a network of which a part stays as it is."""

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

    Gradients of what stays are zero, so it has no share in their norm. It is put back after each
    step, since weight decay moves what has no gradient too, and at the end.
    """
    kept = module.frozen_weights
    if not kept:
        yield
        return
    everything = [tensor.clone() for tensor in kept.tensors(module)]
    parameters = dict(module.named_parameters())
    parts = [(parameters[name], part) for name, part in kept.slices.items()]
    before = [[view.clone() for view in part.select(p.detach())] for p, part in parts]

    def without_gradient(part: WeightSlice, parameter: Tensor) -> None:
        assert parameter.grad is not None
        for view in part.select(parameter.grad):
            view.zero_()

    def put_back(*_: object) -> None:
        for own, (parameter, part) in zip(before, parts, strict=True):
            for i, view in enumerate(part.select(parameter.detach())):
                own[i] = own[i].to(view.device)
                view.copy_(own[i])

    hooks: list[Any] = [
        parameter.register_post_accumulate_grad_hook(partial(without_gradient, part))
        for parameter, part in parts
    ]
    hooks.append(register_optimizer_step_post_hook(put_back))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for tensor, own in zip(kept.tensors(module), everything, strict=True):
                tensor.copy_(own)
