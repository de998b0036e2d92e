"""Counts that were dropped: a column of no values, so that whatever reads them fails at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch

if TYPE_CHECKING:
    from cellvae.core.shapes import CellNumbers, Counts


@final
class DroppedCounts:
    """Column of cells whose counts are gone; what is taken has no genes, [cells, 0]."""

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells

    def __len__(self) -> int:
        """Count the cells."""
        return self.n_cells

    def take(self, cells: CellNumbers) -> Counts:
        """Nothing for each of the cells, [cells, 0]."""
        return torch.empty(len(cells), 0)


def lacks_counts(rows: Any) -> bool:
    """Whether the counts of cells are gone."""
    columns = getattr(rows, "columns", {})
    return any(isinstance(column, DroppedCounts) for column in columns.values())
