"""Checksums of cells follow values, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data.setup.fields import Counts
from cellvae.data.storage import checksums
from cellvae.data.storage.checksums import cell_checksums, splitmix64
from cellvae.data.storage.fingerprint import fingerprint
from cellvae.data.storage.memory import ColumnRows, DenseColumn, SparseColumn

VALUES = np.array([[0, 1, 0, 300], [2, 0, 0, 0], [0, 0, 0, 0], [7, 7, 7, 2**24]])


def checksums_of(matrix: Any, genes: list[int] | None = None) -> list[int]:
    column = Counts().read(AnnData(matrix), Any, None if genes is None else np.array(genes))
    return cell_checksums(column).tolist()


def unsorted(values: np.ndarray) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(values)
    for start, stop in zip(matrix.indptr, matrix.indptr[1:], strict=False):
        matrix.indices[start:stop] = matrix.indices[start:stop][::-1].copy()
        matrix.data[start:stop] = matrix.data[start:stop][::-1].copy()
    matrix.has_sorted_indices = False
    return matrix


def with_zeros(values: np.ndarray) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(values + 1)
    matrix.data -= 1
    return matrix


def doubled(values: np.ndarray) -> sparse.csr_matrix:
    """Every value as a sum of two that are stored."""
    one = sparse.csr_matrix(values)
    half = sparse.csr_matrix((np.ones_like(one.data), one.indices, one.indptr), shape=one.shape)
    rest = sparse.csr_matrix((one.data - 1, one.indices, one.indptr), shape=one.shape)
    starts = 2 * one.indptr
    data = np.zeros(2 * one.nnz, one.dtype)
    indices = np.zeros(2 * one.nnz, one.indices.dtype)
    for i in range(len(values)):
        row = slice(one.indptr[i], one.indptr[i + 1])
        data[starts[i] : starts[i + 1]] = [*half.data[row], *rest.data[row]]
        indices[starts[i] : starts[i + 1]] = [*one.indices[row], *one.indices[row]]
    return sparse.csr_matrix((data, indices, starts), shape=one.shape)


STORED: dict[str, Any] = {
    "dense float32": lambda v: v.astype(np.float32),
    "dense float64": lambda v: v.astype(np.float64),
    "dense int64": lambda v: v.astype(np.int64),
    "dense uint32": lambda v: v.astype(np.uint32),
    "Fortran order": lambda v: np.asfortranarray(v.astype(np.float32)),
    "big-endian": lambda v: v.astype(">f4"),
    "minus zero": lambda v: np.where(v == 0, -0.0, v),
    "CSR int64": lambda v: sparse.csr_matrix(v),
    "CSR float64": lambda v: sparse.csr_matrix(v.astype(float)),
    "CSR array": lambda v: sparse.csr_array(v.astype(np.float32)),
    "CSC int32": lambda v: sparse.csc_matrix(v.astype(np.int32)),
    "CSR unsorted": unsorted,
    "CSR with zeros": with_zeros,
    "CSR with values stored twice": doubled,
}


@pytest.mark.parametrize("store", STORED.values(), ids=STORED.keys())
@pytest.mark.parametrize("block", [1, 5, 2**20])
def test_the_same_values_have_the_same_checksums_however_they_are_stored(
    store: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "VALUES_PER_BLOCK", block)
    expected = checksums_of(VALUES.astype(np.float32))
    assert checksums_of(store(VALUES)) == expected
    assert checksums_of(store(VALUES[:, ::-1]), [3, 2, 1, 0]) == expected
    assert len({*expected}) == 4
    assert expected[2] == 0


def test_checksums_are_the_sum_of_bits_times_random_numbers() -> None:
    numbers = [int(r) for r in splitmix64(4)]
    assert numbers[0] == 0xE220A8397B1DCDAF  # the first of SplitMix64 with the seed 0
    bits = [[int(b) for b in row] for row in VALUES.astype(np.float32).view(np.uint32)]
    by_hand = [sum(b * r for b, r in zip(row, numbers, strict=True)) % 2**64 for row in bits]
    assert checksums_of(VALUES.astype(np.float32)) == [total >> 32 for total in by_hand]


def test_values_that_single_precision_cannot_tell_apart_are_the_same() -> None:
    """A model reads counts in single precision, and learns the same from both."""
    exact, rounded = np.array([[0.1, 2**24 + 1]]), np.float32([[0.1, 2**24 + 1]])
    assert checksums_of(exact) == checksums_of(rounded)
    assert checksums_of(exact) != checksums_of(np.nextafter(rounded, np.float32(9e9)))


def test_counts_on_disk_have_the_checksums_of_those_in_memory(tmp_path: Path) -> None:
    values = np.random.default_rng(0).poisson(0.3, (50, 9))
    expected = checksums_of(values.astype(np.float32))
    for matrix in (values, sparse.csr_matrix(values)):
        AnnData(matrix).write_h5ad(tmp_path / "cells.h5ad")
        backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        assert cell_checksums(Counts().read(backed, Any, None)).tolist() == expected
        backed.file.close()


def test_every_change_of_one_count_changes_the_checksum_of_its_cell_alone() -> None:
    random = np.random.default_rng(1)
    values = random.poisson(1.0, (40, 30)).astype(np.float32)
    before = np.array(checksums_of(values))
    for _ in range(200):
        cell, gene = random.integers(40), random.integers(30)
        changed = values.copy()
        changed[cell, gene] += random.choice([1, 2, 255, 1e-6])
        if changed[cell, gene] != values[cell, gene]:
            assert np.flatnonzero(np.array(checksums_of(changed)) != before).tolist() == [cell]
    swapped = values.copy()
    swapped[0, [0, 1]] = 3, 5
    other = swapped.copy()
    other[0, [0, 1]] = 5, 3
    assert checksums_of(swapped)[0] != checksums_of(other)[0]


def test_a_fingerprint_stays_when_scipy_sorts_the_arrays_in_place() -> None:
    values = np.random.default_rng(2).poisson(0.4, (300, 20))
    matrix = unsorted(values)
    rows = ColumnRows({"counts": SparseColumn(matrix)}, tuple)
    before = fingerprint(rows)
    order = matrix.indices.copy()
    matrix.sort_indices()
    assert not np.array_equal(order, matrix.indices)
    assert fingerprint(rows) == before
    dense = ColumnRows({"counts": DenseColumn(values.astype(np.float64))}, tuple)
    assert fingerprint(dense) == before
    matrix.data[:] = np.log1p(matrix.data)
    assert fingerprint(rows) != before
