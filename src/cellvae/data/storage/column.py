"""Column: one kind of value of every cell, taken by number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers


class Column(Protocol):
    """Values of one kind for every cell: counts, codes or numbers."""

    def __len__(self) -> int:
        """Count the cells."""
        ...

    def take(self, cells: CellNumbers) -> Tensor:
        """Values of the cells with these numbers, in this order, [cells, values]."""
        ...


def check_indices(cells: CellNumbers, n_cells: int) -> NDArray[np.int64]:
    """Cell numbers as a numpy array, all of them existing.

    Raises
    ------
    IndexError
        If a number is below 0 or not below the number of cells.
    """
    numbers = cells.cpu().numpy()
    if numbers.size and (numbers.min() < 0 or numbers.max() >= n_cells):
        raise IndexError(
            f"Expected cell numbers from 0 to {n_cells - 1:,}; "
            f"got {numbers.min():,} to {numbers.max():,}."
        )
    return numbers
