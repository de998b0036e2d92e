"""Counts by their entries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from cellvae.core.csr_batch import CSRBatch


@pytest.fixture
def matrix() -> sparse.csr_matrix:
    matrix = sparse.random(7, 11, 0.3, format="csr", dtype=np.float32, random_state=0)
    matrix.data = np.ceil(9 * matrix.data)
    whole = matrix.toarray()
    whole[2] = 0
    return sparse.csr_matrix(whole)


def entries_of(matrix: sparse.csr_matrix) -> CSRBatch:
    return CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, matrix.shape[1])


def test_arrays_are_shared_where_their_types_fit(matrix: sparse.csr_matrix) -> None:
    indptr = matrix.indptr.astype(np.int64)
    shared = CSRBatch.from_numpy(matrix.data, matrix.indices, indptr, matrix.shape[1])
    assert shared.values.data_ptr() == matrix.data.ctypes.data
    assert shared.indices.data_ptr() == matrix.indices.ctypes.data
    assert shared.indptr.data_ptr() == indptr.ctypes.data
    wide = CSRBatch.from_numpy(
        matrix.data.astype(np.float64),
        matrix.indices.astype(np.int64),
        matrix.indptr,
        shared.n_genes,
    )
    for part, expected in zip(wide, shared, strict=True):
        np.testing.assert_array_equal(part, expected, strict=True)


def test_all_values_and_sums(matrix: sparse.csr_matrix) -> None:
    entries = entries_of(matrix)
    assert entries.n_cells == 7
    np.testing.assert_array_equal(entries.to_dense(), matrix.toarray())
    np.testing.assert_array_equal(entries.sum_by_cell().numpy(), matrix.sum(axis=1))


@pytest.mark.parametrize(("start", "end"), [(0, 7), (0, 3), (2, 3), (3, 7), (4, 4)])
def test_a_part_has_the_cells_of_it(matrix: sparse.csr_matrix, start: int, end: int) -> None:
    part = entries_of(matrix).slice_cells(start, end)
    assert part.n_cells == end - start
    np.testing.assert_array_equal(part.to_dense(), matrix.toarray()[start:end])


@pytest.mark.parametrize(
    ("cells", "is_copied"), [([1, 3, 4], False), ([1, 2, 3, 4], False), ([3, 1, 4], True)]
)
def test_values_are_not_copied_if_only_empty_cells_are_left_out(
    cells: list[int], is_copied: bool
) -> None:
    counts = np.array([[0, 0], [1, 2], [0, 0], [0, 3], [4, 0], [0, 0]], dtype=np.float32)
    batch = entries_of(sparse.csr_matrix(counts))
    chosen = batch.take_cells(torch.tensor(cells))
    assert (chosen.values is not batch.values) == is_copied
    np.testing.assert_array_equal(chosen.to_dense(), counts[cells])


@pytest.mark.parametrize("cells", [[0, 1, 2, 3, 4, 5, 6], [6, 2, 0], [3, 3, 2], []])
def test_chosen_cells_come_in_the_requested_order(
    matrix: sparse.csr_matrix, cells: list[int]
) -> None:
    chosen = entries_of(matrix).take_cells(torch.tensor(cells, dtype=torch.int64))
    assert chosen.n_cells == len(cells)
    assert (chosen.indices.dtype, chosen.indptr.dtype) == (torch.int32, torch.int64)
    np.testing.assert_array_equal(chosen.to_dense(), matrix.toarray()[cells])
