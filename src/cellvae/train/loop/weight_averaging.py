"""Averages of weights: over the steps of a run, and between two networks of one architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cellvae.core.platform.torch_adapter import copy_all_, lerp_all_
from cellvae.errors import InvalidOptionError, quote_names


@torch.no_grad()
def lerp_(average: Sequence[Tensor], values: Sequence[Tensor], fraction: float) -> None:
    """Move an average towards new values by a fraction of the distance, in place."""
    lerp_all_(average, values, fraction)


@torch.no_grad()
def copy_weights_(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into existing tensors."""
    copy_all_(targets, values)


def interpolate_with(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Interpolate linearly between the weights of two networks of one architecture.

    Between a network and its fine-tuned version (WiSE-FT), the result keeps some of the abilities
    of both.

    Parameters
    ----------
    weights
        State of the network at `alpha=0`, such as the one before fine-tuning.
    others
        State of the network at `alpha=1`.
    alpha
        Position between the networks, from 0 to 1. Both ends are exact.

    Returns
    -------
    dict
        New tensors by name. Tensors of integers, such as counters, are those of the nearer network.

    Raises
    ------
    InvalidOptionError
        If names or shapes differ between the networks, or `alpha` is out of range.

    Examples
    --------
    >>> import torch
    >>> ends = {"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([1.0, 8.0])}
    >>> interpolate_with(*ends, alpha=0.25)["w"].tolist()
    [0.25, 5.0]
    """
    if not 0.0 <= alpha <= 1.0:
        raise InvalidOptionError(f"Expected alpha to be from 0 to 1; got {alpha}.")
    if different := sorted(set(weights) ^ set(others)):
        raise InvalidOptionError(
            "Expected two networks with the same names of weights; only one of them has "
            f"{quote_names(different)}. Give two states of one architecture."
        )
    for name, value in weights.items():
        if value.shape != others[name].shape:
            raise InvalidOptionError(
                f"Expected '{name}' to have the same shape in both networks; got "
                f"{tuple(value.shape)} and {tuple(others[name].shape)}. Give two states of one "
                "architecture, made with the same options."
            )
    nearer = others if alpha > 0.5 else weights
    return {
        name: torch.lerp(value.detach(), others[name].detach().to(value), alpha)
        if value.is_floating_point()
        else nearer[name].detach().clone()
        for name, value in weights.items()
    }
