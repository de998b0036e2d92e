"""Cells of a query with the genes of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.core.log import warn
from cellvae.data.storage.count_matrix import layer_names
from cellvae.errors import (
    DataMismatchError,
    DataWarning,
    InvalidDataError,
    InvalidOptionError,
    did_you_mean,
    quote_names,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

PADDING_KEY = "padded"
"""Column of `adata.var` that says which genes the query did not have."""


def align_genes(
    adata: AnnData, genes: Sequence[str], *, inplace: bool = True, min_fraction: float = 0.8
) -> AnnData | None:
    """Bring an AnnData to the genes of a reference, in its order; missing ones are zeros.

    Parameters
    ----------
    adata
        Cells of the query, in memory.
    genes
        Genes of the reference.
    inplace
        Whether `adata` itself is changed; otherwise a new AnnData is made.
    min_fraction
        Least share of the genes of the reference that the query has to have.

    Returns
    -------
    The new AnnData; None if `inplace`. Where genes were missing, `adata.var["padded"]` says which.

    Raises
    ------
    DataMismatchError
        If too few of the genes are there.
    InvalidDataError
        If a gene is there twice, or the cells are in a file.
    """
    from anndata import AnnData

    if not 0 <= min_fraction <= 1:
        raise InvalidOptionError(f"Expected min_fraction to be from 0 to 1; got {min_fraction!r}.")
    if adata.isbacked:
        raise InvalidDataError(
            "Expected cells in memory; got an AnnData in backed mode. Load it first: "
            "adata = adata.to_memory()."
        )
    wanted = pd.Index(genes)
    if adata.var_names.equals(wanted):
        return None if inplace else adata.copy()
    places = gene_indices(adata, wanted)
    missing = places < 0
    warn_missing_genes(adata, wanted, missing, min_fraction)
    var = adata.var.reindex(wanted)
    if missing.any():
        var[PADDING_KEY] = missing
    new = AnnData(
        X=None if adata.X is None else select_columns(adata.X, places),
        obs=adata.obs.copy(),
        var=var,
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
        layers={name: select_columns(adata.layers[name], places) for name in layer_names(adata)},
        raw=adata.raw,
    )
    if not inplace:
        return new
    # As AnnData itself does where it changes its genes in place.
    adata._init_as_actual(new)
    return None


def gene_indices(adata: AnnData, wanted: pd.Index) -> NDArray[np.int64]:
    """Position of each gene in the AnnData; -1 where it is missing."""
    names = adata.var_names
    twice = names[names.duplicated()].intersection(wanted)
    if len(twice):
        raise InvalidDataError(
            f"Expected each gene once; got {quote_names([*twice])} more than once. Make the names "
            "different with adata.var_names_make_unique()."
        )
    first = np.flatnonzero(~names.duplicated())
    found = names[first].get_indexer(wanted)
    return np.where(found < 0, -1, first[found]).astype(np.int64)


def warn_missing_genes(
    adata: AnnData, wanted: pd.Index, missing: NDArray[np.bool_], min_fraction: float
) -> None:
    """Say how many of the genes are there; refuse too few."""
    n_found, n = int((~missing).sum()), len(wanted)
    if not missing.any():
        return
    absent = [*wanted[missing]]
    if not n_found or n_found / n < min_fraction:
        close = did_you_mean(str(absent[0]), map(str, adata.var_names))
        least = np.floor(1000 * n_found / n) / 1000
        go_on = f" Give min_fraction={least:g} to go on all the same." if n_found else ""
        raise DataMismatchError(
            f"Expected at least {min_fraction:.0%} of the {n:,} genes of the reference; got "
            f"{n_found:,} ({n_found / n:.1%}): missing {quote_names(absent)}.{close} Are the "
            "names of "
            f"another kind (symbols, Ensembl identifiers)?{go_on}"
        )
    warn(
        f"The query has {n_found:,} of the {n:,} genes of the reference ({n_found / n:.1%}); "
        f"counts of the other {len(absent):,} ({quote_names(absent)}) are zeros.",
        DataWarning,
    )


def select_columns(matrix: Any, places: NDArray[np.int64]) -> Any:
    """Columns of a matrix at these positions, zeros where one is -1."""
    known = np.flatnonzero(places >= 0)
    chosen = matrix[:, places[known]]
    if sparse.issparse(chosen):
        chosen.sort_indices()
    if len(known) == len(places):
        return chosen
    shape = (matrix.shape[0], len(places))
    if not sparse.issparse(chosen):
        whole = np.zeros(shape, dtype=matrix.dtype)
        whole[:, known] = chosen
        return whole
    if chosen.format == "csr":
        # The genes keep their order, so only their numbers change.
        numbers = known.astype(chosen.indices.dtype)[chosen.indices]
        return sparse.csr_matrix((chosen.data, numbers, chosen.indptr), shape=shape)
    lengths = np.zeros(len(places), dtype=chosen.indptr.dtype)
    lengths[known] = np.diff(chosen.indptr)
    starts = np.concatenate([lengths[:0], [0], np.cumsum(lengths)]).astype(chosen.indptr.dtype)
    return sparse.csc_matrix((chosen.data, chosen.indices, starts), shape=shape)
