"""How many epochs a run has by default."""

from __future__ import annotations

from cellvae.errors import TrainingWarning
from cellvae.messages import warn

# The heuristic of scvi-tools: 400 epochs up to 20,000 cells, then as many cell visits.
MOST_EPOCHS = 400
CELLS_AT_MOST_EPOCHS = 20_000


def default_epochs(n_cells: int, most: int = MOST_EPOCHS) -> int:
    """Epochs for a number of cells; one, with a warning, for millions of them."""
    epochs = round(CELLS_AT_MOST_EPOCHS / n_cells * most)
    if epochs <= 1:
        warn(
            f"{n_cells:,} cells: training for 1 epoch. Give max_epochs to train for longer.",
            TrainingWarning,
        )
    return max(1, min(epochs, most))
