"""What a step changes, so that it can be made twice from the same state and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cellvae.core.platform.torch_adapter import copy_all_, norms

MAX_DIFFERENCE = 0.01
"""Largest difference of weights or moments, as a fraction of how far the step moved them."""
MAX_SUM_DIFFERENCE = 1e-4
"""Largest difference of a sum of the loss, as a fraction of what the step added to it."""

Tensors = Mapping[str, Sequence[Tensor]]
"""Tensors that a step changes, by what they are."""
SUMS = "sums of the loss"


class StateCopy(NamedTuple):
    """Values of all tensors that a step changes, and the state of the random numbers."""

    values: dict[str, list[Tensor]]
    rng: Tensor


def changed_tensors(
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    sums: Sequence[Tensor],
    others: Sequence[Tensor],
) -> Tensors:
    """Tensors that a step changes, by what they are.

    Parameters
    ----------
    module
        The network.
    optimizers
        Its optimizer, and those of what a step trains beside it.
    sums
        Sums of the loss of the epoch.
    others
        Further tensors: counters, and what callbacks keep.
    """
    tensors: dict[str, list[Tensor]] = {
        "weights": [],
        "buffers": list(module.buffers()),
        SUMS: list(sums),
        "counters": list(others),
    }
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            tensors["weights"] += [p.detach() for p in group["params"]]
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors.setdefault(f"{name} of the optimizer", []).append(value)
    return tensors


def copy_state(tensors: Tensors, device: torch.device) -> StateCopy:
    """Copy all tensors, and the state of the random numbers of a device."""
    rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    return StateCopy({what: [t.clone() for t in each] for what, each in tensors.items()}, rng)


def restore_state(tensors: Tensors, copy: StateCopy, device: torch.device) -> None:
    """Bring back a copied state, in place."""
    with torch.no_grad():
        for what, each in tensors.items():
            if each:
                copy_all_(each, copy.values[what])
    if device.type == "cuda":
        torch.cuda.set_rng_state(copy.rng, device)
    else:
        torch.set_rng_state(copy.rng)


def find_difference(before: StateCopy, plain: StateCopy, replayed: StateCopy) -> str:
    """What differs after a plain and a replayed step from the same state; empty if nothing does.

    Floating point numbers may differ by what the order of additions on a device explains, relative
    to the change that the plain step made; all else has to be equal.
    """
    for what, expected in plain.values.items():
        difference = 0.0
        for is_float in (True, False):
            chosen = [i for i, t in enumerate(expected) if t.is_floating_point() == is_float]
            if not chosen:
                continue
            start, end, found = (
                [state.values[what][i] for i in chosen] for state in (before, plain, replayed)
            )
            if not is_float:
                equal = [torch.equal(a, b) for a, b in zip(end, found, strict=True)]
                difference = max(difference, 0.0 if all(equal) else 1.0)
            elif what == SUMS:
                difference = max(difference, largest_difference(start, end, found))
            else:
                difference = max(difference, difference_of_norms(start, end, found))
        if not difference <= (MAX_SUM_DIFFERENCE if what == SUMS else MAX_DIFFERENCE):
            return f"{what} by {difference:.2g} of the change that a step makes"
    return ""


def difference_of_norms(
    start: Sequence[Tensor], end: Sequence[Tensor], found: Sequence[Tensor]
) -> float:
    """Norm of the difference of two states, as a fraction of the norm of the change to the first.

    Of all tensors together: gradients that are zero but for rounding do not count.
    """
    moved = norm_of_difference(end, start)
    different = norm_of_difference(end, found)
    return different / moved if moved else float(different > 0)


def norm_of_difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Euclidean norm of the difference of all elements; those that are NaN in both are equal."""
    parts = [a.double() - b.double() for a, b in matching(first, second)]
    return float(norms(parts).norm()) if parts else 0.0


def matching(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of tensors, with zeros where both are NaN."""
    pairs = []
    for a, b in zip(first, second, strict=True):
        both = a.isnan() & b.isnan()
        pairs.append((a.masked_fill(both, 0.0), b.masked_fill(both, 0.0)))
    return pairs


def largest_difference(
    start: Sequence[Tensor], end: Sequence[Tensor], found: Sequence[Tensor]
) -> float:
    """Largest difference of an element, as a fraction of its own change."""
    largest = 0.0
    for a, (b, c) in zip(start, matching(end, found), strict=True):
        fractions = (b - c).abs() / (b - a).abs().clamp(min=1e-12)
        largest = max(largest, float(torch.where(b == c, 0.0, fractions).max()))
    return largest
