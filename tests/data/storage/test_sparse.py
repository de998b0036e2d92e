"""Cells by their entries, and when they can be had."""

from __future__ import annotations

import gc
import weakref
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
    assert entries is not None
    cells = torch.arange(30)
    assert torch.equal(entries.take(cells).counts.to_dense(), rows.take(cells).counts)


def test_there_are_none_of_dense_counts(matrix: sparse.csr_matrix) -> None:
    assert with_csr_column(rows_of(matrix.toarray())) is None


@pytest.mark.parametrize("more", [-0.05, 0.05])
def test_there_are_none_of_counts_that_are_mostly_not_zero(more: float) -> None:
    matrix = sparse.random(50, 40, MAX_DENSITY + more, format="csr", random_state=0)
    assert (with_csr_column(rows_of(matrix)) is None) == (more > 0)


@pytest.mark.parametrize("genes", [[1, 1, 4, 0, 2], [3, 1, 4, 2, 0]])
def test_genes_that_come_twice_or_in_no_order_are_put_in_order(
    genes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    values = np.arange(1.0, 6.0, dtype=np.float32)
    matrix = sparse.csr_matrix((values, np.array(genes), np.array([0, 3, 5])), shape=(2, 20))
    rows = rows_of(matrix)
    with caplog.at_level("INFO", "cellvae"):
        entries = [with_csr_column(rows) for _ in range(2)]
    assert len(caplog.messages) == 1 and "adata.X.sum_duplicates()" in caplog.messages[0]
    assert matrix.indices.tolist() == genes  # The matrix is the user's.
    for found in entries:
        assert found is not None
        batch = found.take(torch.arange(2)).counts
        assert torch.equal(batch.to_dense(), rows.take(torch.arange(2)).counts)
        for first, last in batch.indptr.unfold(0, 2, 1).tolist():
            assert (batch.indices[first:last].diff() > 0).all()


def test_counts_in_order_are_neither_copied_nor_kept(matrix: sparse.csr_matrix) -> None:
    column: Any = rows_of(matrix).columns["counts"]
    assert column.canonical is column
    reference = weakref.ref(column)
    gc.disable()
    try:
        del column
        assert reference() is None
    finally:
        gc.enable()


def test_cells_that_are_not_there_are_refused(matrix: sparse.csr_matrix) -> None:
    rows = with_csr_column(rows_of(matrix))
    assert rows is not None
    with pytest.raises(IndexError, match="from 0 to 29"):
        rows.take(torch.tensor([30]))
