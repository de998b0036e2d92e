"""Cells that are read in batches, and blocks of optimizer steps."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

B = TypeVar("B", bound=tuple)
B_co = TypeVar("B_co", bound=tuple, covariant=True)


@runtime_checkable
class Rows(Protocol[B_co]):
    """Cells that are stored in memory, on disk or on a device, and read in batches by index."""

    def __len__(self) -> int:
        """Return the number of cells."""
        ...

    def take(self, cells: Int[Tensor, " cells"]) -> B_co:
        """Batch of the cells at these indices, in this order; indices may repeat."""
        ...


class StepBlock(NamedTuple):
    """One batch for Lightning: rows, and the cell indices of each of several optimizer steps."""

    rows: Rows[Any]
    steps: Int[Tensor, "steps cells"]


def to_device(batch: B, device: torch.device) -> B:
    """Batch with all its tensors on a device; tensors that are there are not copied."""
    moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch)
    return type(batch)(*moved)
