"""Counts of proteins in `adata.obsm`, and names of proteins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from cellvae.data.storage.count_matrix import CountMatrix
from cellvae.errors import InvalidDataError, UnknownKeyError, did_you_mean, quote_names

if TYPE_CHECKING:
    from anndata import AnnData


def obsm_matrix(adata: AnnData, key: str | None) -> CountMatrix:
    """Matrix of an entry of `adata.obsm`: a DataFrame, an array or a sparse matrix.

    Raises
    ------
    UnknownKeyError
        If there is no such entry.
    InvalidDataError
        If it is not a matrix of numbers.
    """
    if key not in adata.obsm:
        close = did_you_mean(str(key), adata.obsm.keys())
        raise UnknownKeyError(
            f"Expected an entry of adata.obsm with the counts of the proteins; got "
            f"'{key}'.{close} It has {quote_names([*adata.obsm.keys()]) or 'none'}."
        )
    values = adata.obsm[key]
    where = f"adata.obsm['{key}']"
    if isinstance(values, pd.DataFrame):
        try:
            values = values.to_numpy(dtype=np.float32, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise InvalidDataError(f"Expected numbers in {where}; {error}.") from error
    elif sparse.issparse(values):
        values = values.toarray()
    values = np.ascontiguousarray(values)
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise InvalidDataError(
            f"Expected a matrix of numbers, [cells, proteins], in {where}; got "
            f"{values.dtype} of the shape {[*values.shape]}."
        )
    advice = "The models need raw counts of proteins."
    return CountMatrix(values=values, where=where, advice=advice)


def names_in_uns(adata: AnnData, key: str) -> tuple[str, ...]:
    """Names of proteins in an entry of `adata.uns`.

    Raises
    ------
    UnknownKeyError
        If there is no such entry.
    """
    if key not in adata.uns:
        raise UnknownKeyError(
            f"Expected an entry of adata.uns with the names of the proteins; got '{key}'."
            f"{did_you_mean(key, adata.uns)}"
        )
    return tuple(map(str, adata.uns[key]))


def check_protein_names(names: tuple[str, ...], n_proteins: int) -> None:
    """Check that every protein has a name of its own.

    Raises
    ------
    InvalidDataError
        If there are fewer or more names than proteins, or one occurs twice.
    """
    if len(names) != n_proteins or not n_proteins:
        raise InvalidDataError(
            f"Expected a name for each of {n_proteins:,} proteins, of at least one; got "
            f"{len(names):,}."
        )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise InvalidDataError(
            f"Expected different names for all proteins; got {quote_names(repeated)} more "
            "than once. Rename the columns."
        )
