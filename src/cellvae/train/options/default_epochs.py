"""Default number of epochs of a run."""

from __future__ import annotations

from cellvae.core.log import warn
from cellvae.errors import InvalidOptionError, TrainingWarning

# The heuristic of scvi-tools: 400 epochs up to 20,000 cells, then as many cell visits.
MAX_DEFAULT_EPOCHS = 400
REFERENCE_N_CELLS = 20_000


def get_max_epochs_heuristic(
    n_obs: int, epochs_cap: int = MAX_DEFAULT_EPOCHS, decay_at_n_obs: int = REFERENCE_N_CELLS
) -> int:
    """Default number of epochs of `train` for a number of cells.

    Parameters
    ----------
    n_obs
        Number of cells.
    epochs_cap
        Epochs for few cells.
    decay_at_n_obs
        Number of cells from which on there are fewer epochs, so that as many cells are seen.

    Returns
    -------
    From 1, with a warning, to `epochs_cap`.

    Raises
    ------
    InvalidOptionError
        If a number is below 1.
    """
    given = {"n_obs": n_obs, "epochs_cap": epochs_cap, "decay_at_n_obs": decay_at_n_obs}
    for name, number in given.items():
        if number < 1:
            raise InvalidOptionError(f"Expected {name} to be at least 1; got {number}.")
    return default_epochs(n_obs, epochs_cap, decay_at_n_obs)


def default_epochs(
    n_cells: int, max_epochs: int = MAX_DEFAULT_EPOCHS, cells_at_most: int = REFERENCE_N_CELLS
) -> int:
    """Epochs for a number of cells; one, with a warning, for millions of them."""
    epochs = round(cells_at_most / n_cells * max_epochs)
    if epochs <= 1:
        warn(
            f"{n_cells:,} cells: training for 1 epoch. Give max_epochs to train for longer.",
            TrainingWarning,
        )
    return max(1, min(epochs, max_epochs))
