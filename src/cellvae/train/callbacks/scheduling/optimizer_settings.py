"""Settings of an optimizer (learning rate, betas, ...) that are changed for a run and put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NON_SETTING_KEYS = ("params", "param_names")
"""Entries of a parameter group that say what is in it."""


class ParamGroupSettings:
    """Settings of the parameter groups of an optimizer at one time.

    Parameters
    ----------
    values
        Settings of each group.
    """

    def __init__(self, values: list[dict[str, Any]]) -> None:
        self.values = values

    @classmethod
    def from_optimizer(cls, optimizer: torch.optim.Optimizer) -> ParamGroupSettings:
        """Settings that an optimizer has now."""
        return cls([group_settings(group) for group in optimizer.param_groups])

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer these settings; those that came later are taken away."""
        for group, settings in zip(optimizer.param_groups, self.values, strict=True):
            for name in [n for n in group if n not in NON_SETTING_KEYS and n not in settings]:
                del group[name]
            for name, value in group_settings(settings).items():
                if isinstance(group.get(name), Tensor) and isinstance(value, Tensor):
                    group[name].copy_(value)
                else:
                    group[name] = value


def group_settings(group: dict[str, Any]) -> dict[str, Any]:
    """Settings of a parameter group, copied so that nobody changes them."""
    settings: dict[str, Any] = {}
    for name, value in group.items():
        if name in NON_SETTING_KEYS:
            continue
        if isinstance(value, Tensor):
            settings[name] = value.detach().clone()
        else:
            settings[name] = tuple(value) if isinstance(value, list | tuple) else value
    return settings


def set_learning_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a parameter group; one that is a tensor stays that tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
