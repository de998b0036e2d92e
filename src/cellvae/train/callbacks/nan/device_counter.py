"""Steps that are not finite, counted and left out on the device, which is not waited for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DeviceCounter:
    """Counts the steps of an epoch, and those that are not finite, in tensors on a device.

    Nothing is read back before the epoch ends. The tensors stay in place, so that a CUDA graph
    can replay a step.

    Parameters
    ----------
    device
        Device of the training.

    Attributes
    ----------
    step
        Index of the current step of the epoch.
    n_bad
        Steps of the epoch that were not finite.
    first_step
        Index of the first of them.
    first_flags
        Whether its loss was not finite, and the gradient of each parameter; None before the first
        step.
    """

    def __init__(self, device: torch.device) -> None:
        self.step = torch.full((), -1, dtype=torch.int64, device=device)
        self.n_bad = torch.zeros_like(self.step)
        self.first_step = torch.zeros_like(self.step)
        self.first_flags: Tensor | None = None

    def start_epoch(self) -> None:
        """Set both counts back."""
        self.step.fill_(-1)
        self.n_bad.zero_()

    def add(self, bad: Tensor, flags: Tensor) -> None:
        """Count the current step if it is not finite, and note what was not if it is the first.

        Parameters
        ----------
        bad
            Whether anything is not finite.
        flags
            Whether the loss is not finite, and the gradient of each parameter.
        """
        first = self.first_flags
        if first is None or first.shape != flags.shape:
            self.first_flags = first = torch.zeros_like(flags)
        # What is noted of a step before the first that is not finite is written over.
        none_yet = self.n_bad == 0
        torch.where(none_yet, self.step, self.first_step, out=self.first_step)
        torch.where(none_yet, flags, first, out=first)
        self.n_bad.add_(bad)

    @property
    def first_loss(self) -> Tensor:
        """Whether the loss of the first step that was not finite was not finite itself."""
        assert self.first_flags is not None
        return self.first_flags[0]

    def changed_tensors(self) -> list[Tensor]:
        """Tensors that a step changes."""
        tensors = [self.step, self.n_bad, self.first_step]
        return tensors if self.first_flags is None else [*tensors, self.first_flags]

    def first_bad_names(self, names: Sequence[str]) -> list[str]:
        """Those of the parameters' names whose gradient in the first such step was not finite."""
        assert self.first_flags is not None
        flags = self.first_flags[1:].tolist()
        return [name for name, bad in zip(names, flags, strict=False) if bad]


def zero_out_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[tuple[str, nn.Parameter]], bad: Tensor
) -> None:
    """Make the next step of an optimizer do nothing where `bad` is true on the device.

    Fused optimizers have a flag on the device for this, made for half precision. Others get
    gradients of zero: moments decay, but no infinite value or NaN enters them.
    """
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if fused:
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        return
    for _, p in parameters:
        assert p.grad is not None
        p.grad = torch.where(bad, torch.zeros_like(p.grad), p.grad)
