"""Orders in which an epoch goes through its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cellvae.core.seeds import make_generator

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


def epoch_order(
    cells: CellNumbers | NDArray[np.int64], seed: int, epoch: int, shuffle: bool = True
) -> CellNumbers:
    """Cells in the order of one epoch, a fixed function of the arguments.

    An epoch does not depend on those before it, so a run that is taken up again at any epoch
    sees the same batches.
    """
    numbers = as_index_tensor(cells)
    if not shuffle:
        return numbers
    return numbers[torch.randperm(len(numbers), generator=make_generator(seed, "order", epoch))]


def as_index_tensor(cells: CellNumbers | NDArray[np.int64]) -> CellNumbers:
    """Cell numbers as a tensor of their own, so that later writing to an array changes nothing."""
    if isinstance(cells, torch.Tensor):
        return cells.to(torch.int64)
    return torch.from_numpy(np.array(cells, dtype=np.int64))
