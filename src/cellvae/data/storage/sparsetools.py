"""Adapter of `scipy.sparse._sparsetools`: gathers rows of CSR arrays without argument checks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# scipy.sparse._sparsetools is what `matrix[rows].toarray()` calls, without its checks of the
# arguments: 128 rows x 2,000 genes with 15 % of values take 190 us instead of 330 us.
from scipy.sparse import _sparsetools

FAST_DTYPES = frozenset("?bBhHiIlLqQfd")
"""Type codes of numpy for which the compiled routines have an implementation."""


def csr_take(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], rows: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Data, indices and indptr of the given rows of a CSR matrix, in the same dtypes.

    Nothing is checked: a row outside the matrix reads memory out of bounds.
    """
    rows = rows.astype(indptr.dtype, copy=False)
    row_indptr = np.zeros(len(rows) + 1, dtype=indptr.dtype)
    np.cumsum(indptr[rows + 1] - indptr[rows], out=row_indptr[1:])
    row_indices = np.empty(row_indptr[-1], dtype=indices.dtype)
    row_data = np.empty(row_indptr[-1], dtype=data.dtype)
    _sparsetools.csr_row_index(len(rows), rows, indptr, indices, data, row_indices, row_data)
    return row_data, row_indices, row_indptr


def csr_to_dense(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    n_columns: int,
) -> NDArray[np.float32]:
    """Rows of a CSR matrix as a dense array of single precision, [rows, columns].

    Duplicate entries are summed. Nothing is checked: a row outside the matrix, or an index of
    `n_columns` or more, reads or writes memory out of bounds.
    """
    row_data, row_indices, row_indptr = csr_take(data, indices, indptr, rows)
    dense = np.zeros((len(rows), n_columns), dtype=np.float32)
    values = row_data.astype(np.float32, copy=False)
    _sparsetools.csr_todense(len(rows), n_columns, row_indptr, row_indices, values, dense)
    return dense


def has_canonical_format(indices: NDArray[Any], indptr: NDArray[Any]) -> bool:
    """Whether the indices of every row of a CSR matrix are sorted and without duplicates."""
    return bool(_sparsetools.csr_has_canonical_format(len(indptr) - 1, indptr, indices))


def sort_indices(data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any]) -> None:
    """Sort the indices of each row of a CSR matrix, and the data with them, in place."""
    _sparsetools.csr_sort_indices(len(indptr) - 1, indptr, indices, data)
