"""Arguments that the functions of inference share."""

from __future__ import annotations

INTEGERS = (
    "batch_size",
    "max_cells",
    "mc_samples",
    "n_mc_samples",
    "n_mc_samples_per_pass",
    "n_samples",
    "n_samples_overall",
    "num_cells_posterior",
)
"""Arguments that count something: whole floats and NumPy numbers become integers."""
