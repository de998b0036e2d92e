"""Order of the cells in an epoch."""

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
    """Cells in the order of one epoch, a deterministic function of the arguments.

    It does not depend on earlier epochs, so a run that resumes at any epoch sees the same
    batches.
    """
    indices = as_index_tensor(cells)
    if not shuffle:
        return indices
    return indices[torch.randperm(len(indices), generator=make_generator(seed, "order", epoch))]


def as_index_tensor(cells: CellNumbers | NDArray[np.int64]) -> CellNumbers:
    """Cell indices as a tensor of int64; an array is copied, so later changes have no effect."""
    if isinstance(cells, torch.Tensor):
        return cells.to(torch.int64)
    return torch.from_numpy(np.array(cells, dtype=np.int64))
