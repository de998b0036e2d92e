"""Settings of an optimizer (learning rate, betas, ...) that are changed for a run and put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NOT_SETTINGS = ("params", "param_names")
"""Entries of a parameter group that say what is in it."""


class Rates:
    """Settings of the parameter groups of an optimizer at one time.

    Parameters
    ----------
    values
        Settings of each group.
    """

    def __init__(self, values: list[dict[str, Any]]) -> None:
        self.values = values

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> Rates:
        """Settings that an optimizer has now."""
        return cls([settings(group) for group in optimizer.param_groups])

    def put_back(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer these settings; those that came later are taken away."""
        for group, kept in zip(optimizer.param_groups, self.values, strict=True):
            for name in [n for n in group if n not in NOT_SETTINGS and n not in kept]:
                del group[name]
            for name, value in settings(kept).items():
                if isinstance(group.get(name), Tensor) and isinstance(value, Tensor):
                    group[name].copy_(value)
                else:
                    group[name] = value


def settings(group: dict[str, Any]) -> dict[str, Any]:
    """Settings of a parameter group, copied so that nobody changes them."""
    kept: dict[str, Any] = {}
    for name, value in group.items():
        if name in NOT_SETTINGS:
            continue
        if isinstance(value, Tensor):
            kept[name] = value.detach().clone()
        else:
            kept[name] = tuple(value) if isinstance(value, list | tuple) else value
    return kept


def change_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a parameter group; one that is a tensor stays that tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
