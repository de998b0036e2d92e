"""The adapter of scipy's private routines against scipy's public indexing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from cellvae.data.storage.sparsetools import (
    FAST_DTYPES,
    csr_take,
    csr_to_dense,
    has_canonical_format,
    sort_indices,
)

ROWS = np.array([4, 0, 19, 4, 7])


@pytest.fixture(params=[np.int32, np.int64], ids=["int32", "int64"])
def matrix(request: pytest.FixtureRequest) -> sparse.csr_matrix:
    """CSR matrix with an empty row, [20, 9]."""
    dense = np.random.default_rng(0).poisson(0.6, (20, 9))
    dense[7] = 0
    matrix = sparse.csr_matrix(dense)
    matrix.indices = matrix.indices.astype(request.param)
    matrix.indptr = matrix.indptr.astype(request.param)
    return matrix


@pytest.mark.parametrize("letter", sorted(FAST_DTYPES))
def test_csr_take_equals_public_indexing(matrix: sparse.csr_matrix, letter: str) -> None:
    values = matrix.data.astype(letter)
    expected = sparse.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)[ROWS]
    data, indices, indptr = csr_take(values, matrix.indices, matrix.indptr, ROWS)
    assert data.dtype == values.dtype
    assert indices.dtype == matrix.indices.dtype and indptr.dtype == matrix.indptr.dtype
    np.testing.assert_array_equal(data, expected.data)
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(indptr, expected.indptr)


@pytest.mark.parametrize("letter", sorted(FAST_DTYPES))
def test_csr_to_dense_equals_public_indexing(matrix: sparse.csr_matrix, letter: str) -> None:
    values = matrix.data.astype(letter)
    dense = csr_to_dense(values, matrix.indices, matrix.indptr, ROWS, matrix.shape[1])
    assert dense.dtype == np.float32
    typed = sparse.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)
    np.testing.assert_array_equal(dense, typed[ROWS].toarray().astype(np.float32))


def test_no_rows(matrix: sparse.csr_matrix) -> None:
    rows = np.zeros(0, dtype=np.int64)
    assert csr_to_dense(matrix.data, matrix.indices, matrix.indptr, rows, 9).shape == (0, 9)


def test_duplicates_are_summed_and_not_canonical() -> None:
    data, indices, indptr = np.array([1.0, 2, 4]), np.array([2, 2, 0]), np.array([0, 2, 3])
    assert not has_canonical_format(indices, indptr)
    dense = csr_to_dense(data, indices, indptr, np.array([1, 0]), 3)
    assert dense.tolist() == [[4, 0, 0], [0, 0, 3]]


def test_indices_are_sorted_in_place() -> None:
    data, indices, indptr = np.array([1.0, 2, 4]), np.array([2, 0, 1]), np.array([0, 2, 3])
    assert not has_canonical_format(indices, indptr)
    sort_indices(data, indices, indptr)
    assert has_canonical_format(indices, indptr)
    assert (indices.tolist(), data.tolist()) == ([0, 2, 1], [2, 1, 4])
