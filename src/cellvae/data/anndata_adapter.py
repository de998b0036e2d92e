"""Adapter of names of AnnData that are not public: the only place where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData


def subset_genes_inplace(adata: AnnData, genes: Sequence[str] | NDArray[Any]) -> None:
    """Keep the given genes of an AnnData, by name, index or mask, in place."""
    adata._inplace_subset_var(genes)


def replace_contents(adata: AnnData, contents: AnnData) -> None:
    """Give an AnnData all that another one holds, as AnnData does when it subsets in place."""
    adata._init_as_actual(contents)


def parent_of_view(adata: AnnData) -> tuple[AnnData, NDArray[np.int64], NDArray[np.int64]]:
    """AnnData that a view shows, and the indices of its cells and genes in it."""
    parent = adata._adata_ref
    cells = np.arange(parent.n_obs)[adata._oidx]
    return parent, cells, np.arange(parent.n_vars)[adata._vidx]
