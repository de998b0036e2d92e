"""Groups of cells, and the genes of each group ranked by scanpy."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellvae.data.setup.obs_columns import to_categorical
from cellvae.errors import InvalidOptionError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import Tensor

DE_METHODS = ("t-test", "t-test_overestim_var", "wilcoxon")
"""Tests of `scanpy.tl.rank_genes_groups` that give p values and fold changes."""


def check_method(method: str) -> None:
    """Check that a test is one of those that can be compared.

    Raises
    ------
    InvalidOptionError
        If it is not.
    """
    if method not in DE_METHODS:
        raise InvalidOptionError(
            f"Expected de_method to be one of {', '.join(DE_METHODS)}; got {method!r}."
            f"{did_you_mean(str(method), DE_METHODS)}"
        )


def check_n_draws(n_samples: int, n_available: int) -> None:
    """Check a number of draws for each cell.

    Raises
    ------
    InvalidOptionError
        If it is below 1, or above the number of draws of the check.
    """
    if not 1 <= n_samples <= n_available:
        raise InvalidOptionError(
            f"Expected n_samples from 1 to those of the check, {n_available}; got {n_samples}."
        )


def check_groups(groups: pd.Series, key: str) -> None:
    """Check that groups of cells can be compared with each other.

    Raises
    ------
    InvalidOptionError
        If there are fewer than two groups, or a group has a single cell.
    """
    sizes = np.bincount(groups.cat.codes, minlength=len(groups.cat.categories))
    if len(sizes) < 2:
        raise InvalidOptionError(
            f"Expected at least two groups in {key} among these cells; got {len(sizes)}."
        )
    if sizes.min() < 2:
        small = [str(groups.cat.categories[i]) for i in np.flatnonzero(sizes < 2)]
        raise InvalidOptionError(
            f"Expected at least two cells in each group of {key}; got one in "
            f"{', '.join(small[:5])}. Leave them out with indices=, or merge them with others."
        )


def cell_groups(adata: AnnData, key: str, cells: Tensor) -> pd.Series:
    """Group of each of the cells, as categories without unused ones.

    Raises
    ------
    UnknownKeyError
        If there is no such column.
    InvalidOptionError
        If there are fewer than two groups, or a group has a single cell.
    """
    groups = to_categorical(adata, key).iloc[cells.numpy()]
    groups = groups.cat.remove_unused_categories().reset_index(drop=True)
    check_groups(groups, f"adata.obs['{key}']")
    return groups


def leiden_clusters(counts: csr_matrix, scale: float) -> pd.Series:
    """Leiden clusters of cells by their normalized counts, from scanpy.

    Raises
    ------
    InvalidOptionError
        If igraph is not installed.
    """
    import scanpy as sc

    try:
        import igraph  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise InvalidOptionError(
            "Expected de_groupby=<column of adata.obs>; without it cells are grouped by Leiden "
            "clusters, for which the package igraph is not installed. Give a column, or run: "
            "pip install igraph"
        ) from error
    cells = normalize_counts(counts, scale, pd.Series(["all"] * counts.shape[0], dtype="category"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.pca(cells)
        sc.pp.neighbors(cells)
        sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, key_added="group")
    return cells.obs["group"].reset_index(drop=True)


def normalize_counts(counts: csr_matrix, scale: float, groups: pd.Series) -> Any:
    """AnnData of log-normalized counts, with codes for groups, whose names may be of any type."""
    import scanpy as sc
    from anndata import AnnData

    codes = pd.Categorical.from_codes(
        groups.cat.codes, [str(i) for i in range(len(groups.cat.categories))]
    )
    cells = AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame({"group": codes}, index=[str(i) for i in range(counts.shape[0])]),
        var=pd.DataFrame(index=[str(i) for i in range(counts.shape[1])]),
    )
    with warnings.catch_warnings():
        # All drawn counts of a cell may be 0.
        warnings.simplefilter("ignore")
        sc.pp.normalize_total(cells, target_sum=scale)
        sc.pp.log1p(cells)
    return cells


def rank_genes(
    counts: csr_matrix, groups: pd.Series, method: str, scale: float
) -> list[pd.DataFrame]:
    """Genes of each group, sorted by scanpy's score against all other cells.

    Returns
    -------
    A table for each group, with the indices of the genes as index.
    """
    import scanpy as sc

    cells = normalize_counts(counts, scale, groups)
    with warnings.catch_warnings():
        # Fragmented tables, and genes without any count.
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(cells, "group", use_raw=False, method=method)
        tables = [
            sc.get.rank_genes_groups_df(cells, group=group)
            for group in cells.obs["group"].cat.categories
        ]
    return [table.set_index(table["names"].astype(int)) for table in tables]
