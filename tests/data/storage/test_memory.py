"""Columns: the same batch from every form of matrix, and nothing of the user's changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from torch import Tensor

from cellvae.data.setup.fields import make_count_column
from cellvae.data.storage.count_matrix import count_matrix
from cellvae.data.storage.memory import (
    CategoricalColumn,
    ColumnRows,
    ContinuousColumn,
    DenseColumn,
    SparseColumn,
)
from cellvae.data.storage.sparsetools import csr_to_dense

Make = Callable[[np.ndarray, str], AnnData]


def layer_of(form: str) -> str | None:
    return "counts" if form == "layer" else None


@pytest.mark.parametrize("genes", [None, [22, 0, 5, 6, 1]], ids=["all genes", "some genes"])
def test_every_form_of_matrix_gives_the_same_batches(
    counts: np.ndarray, make: Make, form: str, genes: list[int] | None
) -> None:
    order = None if genes is None else np.array(genes)
    column = make_count_column(count_matrix(make(counts, form), layer_of(form)), order)
    expected = counts if genes is None else counts[:, genes]
    assert len(column) == len(counts)
    for chosen in ([59, 0, 7, 7, 58, 0], [3], list(range(60)), []):
        taken = column.take(torch.tensor(chosen, dtype=torch.int64))
        assert taken.dtype is torch.float32 and taken.is_contiguous()
        assert taken.shape == (len(chosen), expected.shape[1])
        np.testing.assert_array_equal(taken.numpy(), expected[chosen])


def test_cells_that_do_not_exist_are_refused_in_every_form(
    counts: np.ndarray, make: Make, form: str
) -> None:
    column = make_count_column(count_matrix(make(counts, form), layer_of(form)), None)
    for wrong in (-1, 60):
        with pytest.raises(IndexError, match=r"from 0 to 59; got -?\d+ to \d+"):
            column.take(torch.tensor([4, wrong]))


@pytest.mark.parametrize("make_sparse", [sparse.csr_matrix, sparse.csr_array])
def test_the_arrays_of_a_csr_matrix_are_used_without_a_copy(
    counts: np.ndarray, make_sparse: Callable[[np.ndarray], sparse.csr_matrix]
) -> None:
    matrix = make_sparse(counts.astype(np.uint16))
    column = SparseColumn(matrix)
    assert column.data.dtype == np.uint16 and column.n_genes == 23
    assert np.shares_memory(column.data, matrix.data)
    assert np.shares_memory(column.indices, matrix.indices)
    assert np.shares_memory(column.indptr, matrix.indptr)


def test_a_batch_does_not_share_memory_with_the_data(counts: np.ndarray) -> None:
    for column in (DenseColumn(counts), SparseColumn(sparse.csr_matrix(counts))):
        column.take(torch.arange(60)).fill_(-1)
        assert (column.take(torch.arange(60)) >= 0).all()
    assert (counts >= 0).all()


@pytest.mark.parametrize("kind", [CategoricalColumn, ContinuousColumn])
def test_a_column_that_nobody_may_write_to_is_copied(kind: type) -> None:
    own = np.arange(6, dtype=np.int64 if kind is CategoricalColumn else np.float32).reshape(3, 2)
    shared = kind(own)
    assert shared.take(torch.tensor([2])).tolist() == [[4, 5]]
    own.flags.writeable = False
    copied = kind(own)
    for attribute in ("codes", "values"):
        if hasattr(copied, attribute):
            assert np.shares_memory(getattr(shared, attribute).numpy(), own)
            assert not np.shares_memory(getattr(copied, attribute).numpy(), own)
    assert copied.take(torch.tensor([2])).tolist() == [[4, 5]]


def test_a_csc_matrix_is_converted_once_and_it_is_said(
    counts: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = sparse.csc_matrix(counts)
    before = matrix.copy()
    with caplog.at_level(logging.INFO, logger="cellvae"):
        column = SparseColumn(matrix)
        column.take(torch.arange(60))
    assert len(caplog.messages) == 1
    assert "from CSC to CSR (0.0 MB)" in caplog.messages[0]
    assert matrix.format == "csc"
    np.testing.assert_array_equal(matrix.data, before.data)
    np.testing.assert_array_equal(matrix.indptr, before.indptr)


def test_64_bit_positions_give_the_same_rows(counts: np.ndarray) -> None:
    matrix = sparse.csr_array(counts)
    for indices, starts in ((np.int64, np.int64), (np.int32, np.int64), (np.int64, np.int32)):
        wide = sparse.csr_array(counts)
        wide.indices = matrix.indices.astype(indices)
        wide.indptr = matrix.indptr.astype(starts)
        column = SparseColumn(wide)
        assert column.indices.dtype == column.indptr.dtype
        np.testing.assert_array_equal(column.take(torch.arange(60)).numpy(), counts)


@pytest.mark.parametrize("letter", [">f4", ">i2", "g"])
def test_values_that_scipy_is_slow_with_are_converted_once(counts: np.ndarray, letter: str) -> None:
    matrix = sparse.csr_matrix(counts)
    matrix.data = matrix.data.astype(letter)
    column = SparseColumn(matrix)
    assert column.data.dtype == np.float32 and column.data.dtype.isnative
    np.testing.assert_array_equal(column.take(torch.arange(60)).numpy(), counts)
    assert matrix.data.dtype == np.dtype(letter)


def test_dense_rows_are_those_of_scipy_for_every_type_of_value() -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, 50, 200)
    for letter in "?bBhHiIlLqQfd":
        dense = random.integers(0, 3, (50, 31)).astype(letter)
        matrix = sparse.csr_matrix(dense)
        found = csr_to_dense(matrix.data, matrix.indices, matrix.indptr, rows, 31)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, matrix[rows].toarray().astype(np.float32))


def test_codes_and_numbers_are_taken_in_the_order_asked() -> None:
    codes = CategoricalColumn(np.array([[0], [2], [1]]))
    numbers = ContinuousColumn(np.array([[0.5, 1], [1.5, 2], [2.5, 3]], dtype=np.float32))
    chosen = torch.tensor([2, 0, 2])
    assert codes.take(chosen).tolist() == [[1], [0], [1]]
    assert codes.take(chosen).dtype is torch.int64
    assert numbers.take(chosen).tolist() == [[2.5, 3], [0.5, 1], [2.5, 3]]
    for column in (codes, numbers):
        assert len(column) == 3
        for wrong in (-1, 3):
            with pytest.raises((IndexError, RuntimeError)):
                column.take(torch.tensor([wrong]))


class Batch(NamedTuple):
    """A batch with a part that may be absent."""

    counts: Tensor
    codes: Tensor
    extra: Tensor | None = None


def test_columns_together_make_a_named_batch_with_its_defaults(counts: np.ndarray) -> None:
    columns = {"codes": CategoricalColumn(np.arange(60)[:, None]), "counts": DenseColumn(counts)}
    rows = ColumnRows(columns, Batch)
    batch = rows.take(torch.tensor([59, 1]))
    assert len(rows) == 60
    assert isinstance(batch, Batch) and batch.extra is None
    assert batch.codes.tolist() == [[59], [1]]
    np.testing.assert_array_equal(batch.counts.numpy(), counts[[59, 1]])


def test_columns_of_different_length_make_no_rows(counts: np.ndarray) -> None:
    columns = {"codes": CategoricalColumn(np.zeros((3, 1))), "counts": DenseColumn(counts)}
    with pytest.raises(ValueError, match="equal length; got {'codes': 3, 'counts': 60}"):
        ColumnRows(columns, Batch)
