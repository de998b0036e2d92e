"""Columns of a device, looked at on the CPU: the same cells in whatever types they are kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from cellvae.data.storage.device import max_device_bytes, move_rows_to_device, to_smallest_dtype
from cellvae.data.storage.memory import (
    CategoricalColumn,
    ColumnRows,
    ContinuousColumn,
    DenseColumn,
    SparseColumn,
)
from cellvae.data.storage.placement import choose_placement
from cellvae.data.storage.row_wrappers import ToDevice
from cellvae.errors import InvalidOptionError

CPU, OTHER = torch.device("cpu"), torch.device("meta")
CELLS = torch.tensor([7, 0, 29, 7, 13])


class Batch(NamedTuple):
    counts: Tensor
    batch: Tensor
    numbers: Tensor
    n_labelled: int = 0


def rows_of(counts: Any, genes: Any = None) -> ColumnRows[Batch]:
    column = SparseColumn(counts, genes) if sparse.issparse(counts) else DenseColumn(counts, genes)
    n = counts.shape[0]
    numbers = np.linspace(0, 1, 2 * n, dtype=np.float32).reshape(n, 2)
    columns = {
        "counts": column,
        "batch": CategoricalColumn(np.arange(n)[:, None]),
        "numbers": ContinuousColumn(numbers),
    }
    return ColumnRows(columns, Batch)


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one[:3], other[:3], strict=True)
    )


@pytest.fixture
def matrix() -> sparse.csr_matrix:
    matrix = sparse.random(30, 40, 0.2, format="csr", random_state=0)
    whole = np.ceil(200 * matrix.toarray())
    whole[0] = 0
    return sparse.csr_matrix(whole)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("genes", [None, np.array([3, 30, 7])])
def test_batches_are_those_of_the_rows_in_memory(
    matrix: sparse.csr_matrix, kind: Any, dense: bool, genes: Any
) -> None:
    counts = matrix.astype(kind)
    rows = rows_of(counts.toarray() if dense else counts, genes)
    placed = move_rows_to_device(rows, CPU)
    assert placed is not None
    assert len(placed) == 30
    assert same(placed.take(CELLS), rows.take(CELLS))
    assert same(ToDevice(rows, CPU).take(CELLS), rows.take(CELLS))


def test_genes_in_no_order_and_counts_stored_twice_are_the_same_too() -> None:
    counts = sparse.csr_matrix(
        (np.array([1.0, 2, 3, 4]), np.array([5, 1, 1, 0]), np.array([0, 3, 4])), shape=(2, 6)
    )
    rows = rows_of(counts)
    placed = move_rows_to_device(rows, CPU)
    assert placed is not None
    cells = torch.tensor([1, 0])
    assert same(placed.take(cells), rows.take(cells))
    assert same(ToDevice(rows, CPU).take(cells), rows.take(cells))


def test_cells_without_counts_are_zeros() -> None:
    placed = move_rows_to_device(rows_of(sparse.csr_matrix((4, 5))), CPU)
    assert placed is not None
    assert torch.equal(placed.take(torch.tensor([2, 3])).counts, torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 255.0], torch.uint8),
        ([0, 256], torch.int16),
        ([0, 40_000], torch.int32),
        ([0.0, 2.0**24 + 2], torch.float32),
        ([0.5, 1.0], torch.float32),
        ([-1.0, 1.0], torch.float32),
        ([1.0, np.inf], torch.float32),
    ],
)
def test_values_are_kept_in_the_smallest_type_that_holds_them(
    values: list[float], kind: torch.dtype
) -> None:
    kept = to_smallest_dtype(np.array(values))
    assert kept.dtype == kind
    np.testing.assert_array_equal(kept.float().numpy(), np.array(values, dtype=np.float32))


def test_cells_go_where_they_fit_with_margin(matrix: sparse.csr_matrix) -> None:
    rows = rows_of(matrix)
    size = max_device_bytes(rows)
    assert size is not None
    for free, where in ((2 * size, "device"), (2 * size - 2, "memory")):
        placement = choose_placement(rows, OTHER, free=free)
        assert placement.where == where
        assert "GiB free on meta" in placement.reason
    placed = choose_placement(rows, OTHER, free=2 * size).rows
    assert isinstance(placed, ColumnRows)
    assert placed.columns["counts"].values.device == OTHER  # type: ignore[attr-defined]
    # Asked for, they go there without margin.
    assert choose_placement(rows, OTHER, "device", free=size).where == "device"
    with pytest.raises(InvalidOptionError, match="Use placement='memory'"):
        choose_placement(rows, OTHER, "device", free=size - 1)
    assert choose_placement(rows, OTHER, "memory", free=10 * size).where == "memory"


def test_a_processor_works_where_the_cells_are(matrix: sparse.csr_matrix) -> None:
    rows = rows_of(matrix)
    placement = choose_placement(rows, CPU)
    assert placement.rows is rows
    assert (placement.where, placement.reason) == ("memory", "the processor works there")


def test_cells_of_a_file_stay_there(matrix: sparse.csr_matrix) -> None:
    class Elsewhere:
        def __len__(self) -> int:
            return 30

        def take(self, cells: Tensor) -> Tensor:
            return torch.zeros(len(cells), 40)

    rows = rows_of(matrix)
    rows.columns["counts"] = Elsewhere()
    placement = choose_placement(rows, OTHER, free=2**40)
    assert (placement.where, placement.reason) == ("memory", "the cells are read from a file")
    with pytest.raises(InvalidOptionError, match="to_memory"):
        choose_placement(rows, OTHER, "device", free=2**40)
