"""Counts of cells like those of an experiment, in any size and with any share of zeros."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

N_GROUPS, N_BATCHES, DISPERSION = 10, 2, 1.5
AT_ONCE = 5_000


def zeros_of(means: np.ndarray) -> float:
    """Share of zeros among negative binomial counts of these means."""
    return float(((DISPERSION / (DISPERSION + means)) ** DISPERSION).mean())


def scale_for(means: np.ndarray, density: float) -> float:
    """Factor of the means with which so large a share of the counts is not zero."""
    low, high = -8.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        too_few = 1 - zeros_of(means * np.exp(middle)) < density
        low, high = (middle, high) if too_few else (low, middle)
    return float(np.exp((low + high) / 2))


def simulated(
    n_cells: int, n_genes: int, density: float, seed: int = 0, n_batches: int = N_BATCHES
) -> anndata.AnnData:
    """Negative binomial counts (CSR) of ten groups in some batches.

    Parameters
    ----------
    n_cells, n_genes
        Size.
    density
        Share of the counts that are not zero, roughly.
    seed
        Seed of all of it.
    n_batches
        Number of batches, each with differences of its own.
    """
    random = np.random.default_rng(seed)
    differences = random.normal(0, 0.7, (N_GROUPS, 1, n_genes))
    differences = differences + random.normal(0, 0.2, (N_GROUPS, n_batches, n_genes))
    profile = random.gamma(0.5, 1.0, n_genes) * np.exp(differences)
    profile *= scale_for(profile, density)
    group, batch = random.integers(0, N_GROUPS, n_cells), random.integers(0, n_batches, n_cells)
    size = random.lognormal(0, 0.3, n_cells)
    parts = []
    for start in range(0, n_cells, AT_ONCE):
        chosen = slice(start, start + AT_ONCE)
        means = profile[group[chosen], batch[chosen]] * size[chosen, None]
        rates = random.gamma(DISPERSION, means / DISPERSION)
        parts.append(sparse.csr_matrix(random.poisson(rates).astype(np.float32)))
    obs = pd.DataFrame(
        {"batch": pd.Categorical([f"b{b}" for b in batch]), "group": [f"g{g}" for g in group]},
        index=[f"c{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return anndata.AnnData(sparse.vstack(parts, format="csr"), obs=obs, var=var)
