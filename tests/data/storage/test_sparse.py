"""Cells by their entries, and when they can be had."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from cellvae.core.csr_batch import CSRBatch
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows, DenseColumn, SparseColumn
from cellvae.data.storage.sparse import MAX_DENSITY, with_csr_column


class Batch(NamedTuple):
    counts: Any
    batch: Tensor


def rows_of(matrix: Any, genes: Any = None) -> ColumnRows[Batch]:
    column = SparseColumn(matrix, genes) if sparse.issparse(matrix) else DenseColumn(matrix, genes)
    codes = CategoricalColumn(np.arange(matrix.shape[0])[:, None])
    return ColumnRows({"counts": column, "batch": codes}, Batch)


@pytest.fixture
def matrix() -> sparse.csr_matrix:
    matrix = sparse.random(30, 40, 0.1, format="csr", random_state=0)
    matrix.data = np.ceil(200 * matrix.data)
    return matrix


@pytest.mark.parametrize("width", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.uint8, np.int64])
def test_entries_are_those_of_the_dense_rows(
    matrix: sparse.csr_matrix, kind: type, width: type
) -> None:
    matrix = matrix.astype(kind)
    matrix.indices, matrix.indptr = matrix.indices.astype(width), matrix.indptr.astype(width)
    rows = rows_of(matrix)
    sparse_rows = with_csr_column(rows)
    assert sparse_rows is not None
    cells = torch.tensor([7, 0, 29, 7])
    batch, plain = sparse_rows.take(cells), rows.take(cells)
    assert isinstance(batch.counts, CSRBatch)
    assert [t.dtype for t in batch.counts[:3]] == [torch.float32, torch.int32, torch.int64]
    assert torch.equal(batch.counts.to_dense(), plain.counts)
    assert torch.equal(batch.batch, plain.batch)


def test_chosen_genes_are_those_of_the_model(matrix: sparse.csr_matrix) -> None:
    genes = np.array([5, 3, 20, 11])
    rows = rows_of(matrix, genes)
    entries = with_csr_column(rows)
    if entries is None:
        # Genes in another order than in the matrix, put in order by scipy or not.
        assert not rows.columns["counts"].is_canonical  # type: ignore[attr-defined]
        return
    cells = torch.arange(30)
    assert torch.equal(entries.take(cells).counts.to_dense(), rows.take(cells).counts)


def test_there_are_none_of_dense_counts(matrix: sparse.csr_matrix) -> None:
    assert with_csr_column(rows_of(matrix.toarray())) is None


@pytest.mark.parametrize("more", [-0.05, 0.05])
def test_there_are_none_of_counts_that_are_mostly_not_zero(more: float) -> None:
    matrix = sparse.random(50, 40, MAX_DENSITY + more, format="csr", random_state=0)
    assert (with_csr_column(rows_of(matrix)) is None) == (more > 0)


def test_there_are_none_of_genes_that_come_twice_or_in_no_order() -> None:
    twice = sparse.csr_matrix((np.ones(2), np.array([1, 1]), np.array([0, 2])), shape=(1, 20))
    unsorted = sparse.csr_matrix((np.ones(2), np.array([3, 1]), np.array([0, 2])), shape=(1, 20))
    assert with_csr_column(rows_of(twice)) is None
    assert with_csr_column(rows_of(unsorted)) is None
    assert rows_of(twice).take(torch.tensor([0])).counts[0, 1] == 2


def test_cells_that_are_not_there_are_refused(matrix: sparse.csr_matrix) -> None:
    rows = with_csr_column(rows_of(matrix))
    assert rows is not None
    with pytest.raises(IndexError, match="from 0 to 29"):
        rows.take(torch.tensor([30]))
