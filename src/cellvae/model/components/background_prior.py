"""Prior of the background counts of proteins, estimated from the counts of single cells."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cellvae.contracts import Rows
from cellvae.data.batches.batching import iter_batches
from cellvae.data.storage.memory import ColumnRows

N_CELLS = 100
"""Cells of each panel that the prior is estimated from."""
MIN_PROTEINS = 5
"""Proteins that a panel must have for an estimate."""
DEFAULT_MEAN, DEFAULT_SCALE = 0.0, 0.05
"""Log mean and standard deviation where there is no estimate."""


def protein_background_by_panel(
    rows: Rows[Any],
    measured: NDArray[np.bool_],
    *,
    n_cells: int = N_CELLS,
    batch_size: int = 4096,
    seed: int = 0,
) -> tuple[Float[Tensor, " panels"], Float[Tensor, " panels"]]:
    """Mean and standard deviation of the log background counts of a protein in each panel.

    The estimate of a panel is the average of :func:`cell_background` over cells of it that are
    drawn with replacement; its standard deviation is that of the average, as in scvi-tools. A panel
    without cells has mean 0 and standard deviation 1; one with fewer than five proteins 0 and 0.05.

    Parameters
    ----------
    rows
        Cells, in batches with `proteins` and `panel`.
    measured
        Which proteins were measured in which panel, [panels, proteins].
    n_cells
        Cells to draw from each panel.
    batch_size
        Cells that are read at a time.
    seed
        Seed of the draw and of the mixtures; the result is a function of it and of the data.
    """
    if isinstance(rows, ColumnRows):  # counts of genes may be in files
        rows = rows.select_columns("proteins", "panel")
    panels = torch.cat(
        [b.panel.squeeze(-1) for _, b in iter_batches(rows, torch.arange(len(rows)), batch_size)]
    ).numpy()
    random = np.random.default_rng(seed)
    means, scales = np.zeros(len(measured)), np.ones(len(measured))
    for panel, is_measured in enumerate(measured):
        in_panel = np.flatnonzero(panels == panel)
        if len(in_panel) == 0:
            continue
        if is_measured.sum() < MIN_PROTEINS:
            means[panel], scales[panel] = DEFAULT_MEAN, DEFAULT_SCALE
            continue
        drawn, times = np.unique(random.choice(in_panel, size=n_cells), return_counts=True)
        counts = rows.take(torch.from_numpy(drawn)).proteins.numpy()[:, is_measured]
        estimates = np.array([cell_background(cell, seed) for cell in counts])
        means[panel] = np.average(estimates[:, 0], weights=times)
        scales[panel] = np.sqrt(np.sum(times * np.square(estimates[:, 1]))) / n_cells
    return torch.from_numpy(means).float(), torch.from_numpy(scales).float()


def cell_background(counts: NDArray[Any], seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of the log(1 + background counts) of the proteins of one cell.

    That is the component with the lower mean in a Gaussian mixture of two. For cells that do not
    have two different counts, or for which the mixture does not converge, it is 0 and 0.05.

    Parameters
    ----------
    counts
        Counts of the proteins of the cell, [proteins].
    seed
        Seed of the initial components.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    values = np.log1p(np.asarray(counts, dtype=np.float64)).reshape(-1, 1)
    if len(np.unique(values)) < 2:
        return DEFAULT_MEAN, DEFAULT_SCALE
    mixture = GaussianMixture(n_components=2, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            mixture.fit(values)
        except ConvergenceWarning:
            return DEFAULT_MEAN, DEFAULT_SCALE
    lower = int(np.argmin(mixture.means_.ravel()))
    return float(mixture.means_[lower, 0]), float(np.sqrt(mixture.covariances_[lower, 0, 0]))
