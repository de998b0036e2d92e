"""Column: one type of value of every cell, read by cell indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers, Counts


class Column(Protocol):
    """One type of value for every cell: counts, category codes, or continuous values."""

    def __len__(self) -> int:
        """Count the cells."""
        ...

    def take(self, cells: CellNumbers) -> Tensor:
        """Values of the cells with these indices, in this order, [cells, values]."""
        ...


@final
class DroppedCounts:
    """Placeholder for counts that are no longer stored: zero genes, so that any use of them fails.

    A minified AnnData without counts has this column in place of its counts.
    """

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells

    def __len__(self) -> int:
        """Count the cells."""
        return self.n_cells

    def take(self, cells: CellNumbers) -> Counts:
        """Empty counts of the cells with these indices, [cells, 0]."""
        return torch.empty(len(cells), 0)


def lacks_counts(rows: Any) -> bool:
    """Whether the counts of a data set were dropped."""
    columns = getattr(rows, "columns", {})
    return any(isinstance(column, DroppedCounts) for column in columns.values())


def check_indices(cells: CellNumbers, n_cells: int) -> NDArray[np.int64]:
    """Cell indices as a numpy array, checked to be in range.

    Raises
    ------
    IndexError
        If an index is below 0 or not below the number of cells.
    """
    indices = cells.cpu().numpy().astype(np.int64, copy=False)
    # Negative numbers are the largest of all without a sign.
    if indices.size and np.maximum.reduce(indices.view(np.uint64)) >= n_cells:
        raise IndexError(
            f"Expected cell indices from 0 to {n_cells - 1:,}; "
            f"got {indices.min():,} to {indices.max():,}."
        )
    return indices
