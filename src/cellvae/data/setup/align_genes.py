"""Alignment of the genes of a query AnnData with those of a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.core.log import warn
from cellvae.data.anndata_adapter import replace_contents
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.mudata_adapter import is_mudata, make_mudata, replace_modalities
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

    from cellvae.data.setup.fields import Field
    from cellvae.data.setup.registration import Registration

PADDING_KEY = "padded"
"""Column of `adata.var` that is true for genes that the query did not have."""


def align_genes(
    adata: AnnData,
    genes: Sequence[str],
    *,
    inplace: bool = True,
    min_fraction: float = 0.8,
    name: str = "genes",
) -> AnnData | None:
    """Give an AnnData the genes of a reference, in their order; missing genes are zeros.

    Parameters
    ----------
    adata
        Cells of the query, in memory or in files, which are not changed.
    genes
        Genes of the reference.
    inplace
        Whether to change `adata` itself; otherwise a new AnnData is returned.
    min_fraction
        Minimum fraction of the reference's genes that the query must have.
    name
        What the features are, for messages.

    Returns
    -------
    The new AnnData; None if `inplace`. If genes were missing, `adata.var["padded"]` marks them.

    Raises
    ------
    DataMismatchError
        If the query has too few of the genes.
    InvalidDataError
        If a gene occurs twice, or the AnnData is in backed mode.
    """
    from anndata import AnnData

    if not 0 <= min_fraction <= 1:
        raise InvalidOptionError(f"Expected min_fraction to be from 0 to 1; got {min_fraction!r}.")
    if adata.isbacked and not isinstance(adata, CellFiles):
        raise InvalidDataError(
            "Expected cells in memory or in files; got an AnnData in backed mode. Load it first, "
            "adata = adata.to_memory(), or open its file with cellvae.data.open_cells(path)."
        )
    reference_genes = pd.Index(genes)
    if adata.var_names.equals(reference_genes):
        return None if inplace else adata.copy()
    indices = gene_indices(adata, reference_genes)
    missing = indices < 0
    warn_missing_genes(adata, reference_genes, missing, min_fraction, name)
    var = adata.var.reindex(reference_genes)
    if missing.any():
        var[PADDING_KEY] = missing
    if isinstance(adata, CellFiles):
        cells = adata if inplace else adata.copy()
        cells.replace_genes(indices, var)
        return None if inplace else cells
    new = AnnData(
        X=None if adata.X is None else select_columns(adata.X, indices),
        obs=adata.obs.copy(),
        var=var,
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
        layers={name: select_columns(adata.layers[name], indices) for name in layer_names(adata)},
        raw=adata.raw,
    )
    if not inplace:
        return new
    replace_contents(adata, new)
    return None


def align_modalities(
    mdata: Any,
    registration: Registration[Any],
    fields: Sequence[Field],
    *,
    inplace: bool = True,
    min_fraction: float = 0.8,
) -> Any:
    """Give the modalities of a MuData the features of a reference, in their order.

    Parameters
    ----------
    mdata
        Cells of the query, in memory.
    registration, fields
        Those of the reference.
    inplace
        Whether `mdata` itself is changed; otherwise a new MuData is returned.
    min_fraction
        Minimum fraction of the features that each modality must have; those that were not measured
        in some cells, as proteins, may all be missing.

    Returns
    -------
    The new MuData; None if `inplace`.

    Raises
    ------
    DataMismatchError
        If the query has too few of the features.
    InvalidDataError
        If `mdata` is no MuData, a feature occurs twice, or it is in backed mode.
    """
    if not is_mudata(mdata):
        raise InvalidDataError(f"Expected a MuData; got {type(mdata).__name__}.")
    tables = dict(mdata.mod)
    for field in fields:
        if field.axis is None or field.modality is None:
            continue
        axis = registration.axes[field.axis]
        if field.modality not in tables:
            tables[field.modality] = field.empty_table(mdata.obs_names, axis)
            continue
        aligned = align_genes(
            tables[field.modality],
            axis.features,
            inplace=False,
            min_fraction=0 if field.may_lack_features else min_fraction,
            name=axis.name,
        )
        assert aligned is not None
        tables[field.modality] = aligned
    if not inplace:
        return make_mudata(tables, mdata)
    replace_modalities(mdata, tables)
    return None


def gene_indices(adata: AnnData, reference_genes: pd.Index) -> NDArray[np.int64]:
    """Index of each reference gene in the AnnData; -1 if it is missing."""
    names = adata.var_names
    repeated = names[names.duplicated()].intersection(reference_genes)
    if len(repeated):
        raise InvalidDataError(
            f"Expected each gene once; got {quote_names([*repeated])} more than once. Make the "
            "names unique with adata.var_names_make_unique()."
        )
    first = np.flatnonzero(~names.duplicated())
    found = names[first].get_indexer(reference_genes)
    return np.where(found < 0, -1, first[found]).astype(np.int64)


def warn_missing_genes(
    adata: AnnData,
    reference_genes: pd.Index,
    missing: NDArray[np.bool_],
    min_fraction: float,
    name: str,
) -> None:
    """Warn if genes are missing; raise if too many are."""
    n_found, n = int((~missing).sum()), len(reference_genes)
    if not missing.any():
        return
    missing_names = [*reference_genes[missing]]
    if not n_found or n_found / n < min_fraction:
        close = did_you_mean(str(missing_names[0]), map(str, adata.var_names))
        reached = np.floor(1000 * n_found / n) / 1000
        advice = f" Pass min_fraction={reached:g} to accept this." if n_found else ""
        raise DataMismatchError(
            f"Expected at least {min_fraction:.0%} of the {n:,} {name} of the reference; got "
            f"{n_found:,} ({n_found / n:.1%}): missing {quote_names(missing_names)}.{close} Are "
            f"the names of another type (symbols, Ensembl identifiers)?{advice}"
        )
    warn(
        f"The query has {n_found:,} of the {n:,} {name} of the reference ({n_found / n:.1%}); "
        f"counts of the other {len(missing_names):,} ({quote_names(missing_names)}) are zeros.",
        DataWarning,
    )


def select_columns(matrix: Any, indices: NDArray[np.int64]) -> Any:
    """Columns of a matrix with these indices, zeros for -1."""
    present = np.flatnonzero(indices >= 0)
    columns = matrix[:, indices[present]]
    if sparse.issparse(columns):
        columns.sort_indices()
    if len(present) == len(indices):
        return columns
    shape = (matrix.shape[0], len(indices))
    if not sparse.issparse(columns):
        dense = np.zeros(shape, dtype=matrix.dtype)
        dense[:, present] = columns
        return dense
    if columns.format == "csr":
        # The genes keep their order, so only their indices change.
        new_indices = present.astype(columns.indices.dtype)[columns.indices]
        return sparse.csr_matrix((columns.data, new_indices, columns.indptr), shape=shape)
    lengths = np.zeros(len(indices), dtype=columns.indptr.dtype)
    lengths[present] = np.diff(columns.indptr)
    indptr = np.concatenate([lengths[:0], [0], np.cumsum(lengths)]).astype(columns.indptr.dtype)
    return sparse.csc_matrix((columns.data, columns.indices, indptr), shape=shape)
