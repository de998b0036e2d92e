"""Counts of a file that may change: the same as in memory, and little of the file is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.data.storage.count_matrix import count_matrix
from cellvae.data.storage.disk import matrix_reader as backed
from cellvae.data.storage.disk.backed_column import BackedColumn, make_reader
from cellvae.data.storage.disk.h5ad_readers import DenseReader, SparseReader

Make = Callable[[np.ndarray, str], AnnData]
FORMS = ["backed dense", "backed csr", "backed view dense", "backed view csr"]


@pytest.fixture(autouse=True)
def may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files as those that were opened for writing too."""
    monkeypatch.setattr("cellvae.data.storage.count_matrix.backed_matrix", lambda values: None)


class Counting:
    """Dataset that counts how often and how much is read from it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.dtype = dataset.dtype
        self.reads: list[int] = []

    def __getitem__(self, chosen: slice) -> np.ndarray:
        self.reads.append(chosen.stop - chosen.start)
        return self.dataset[chosen]


@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("gap", [0, 40, 10**6])
def test_any_cells_in_any_order_are_those_of_memory(
    counts: np.ndarray, make: Make, on_disk: str, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backed, "MAX_SKIP", gap)
    column = BackedColumn(count_matrix(make(counts, on_disk)))
    random = np.random.default_rng(gap)
    for n_cells in (1, 2, 5, 30, 90):
        chosen = random.integers(0, 60, n_cells)
        taken = column.take(torch.from_numpy(chosen))
        np.testing.assert_array_equal(taken.numpy(), counts[chosen])


def test_the_kind_of_dataset_decides_on_the_reader(counts: np.ndarray, make: Make) -> None:
    assert isinstance(make_reader(count_matrix(make(counts, "backed dense"))), DenseReader)
    assert isinstance(make_reader(count_matrix(make(counts, "backed csr"))), SparseReader)


def test_neighbours_are_read_together_and_far_cells_apart(
    counts: np.ndarray, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backed, "MAX_SKIP", 23)
    dense = DenseReader(count_matrix(make(counts, "backed dense")))
    dense.dataset = Counting(dense.dataset)
    np.testing.assert_array_equal(
        dense.read(np.array([30, 3, 1, 3, 33])), counts[[30, 3, 1, 3, 33]]
    )
    assert dense.dataset.reads == [3, 1, 1]

    compressed = SparseReader(count_matrix(make(counts, "backed csr")))
    compressed.data = Counting(compressed.data)
    assert compressed.read(np.arange(10, 20)).shape == (10, 23)
    assert compressed.data.reads == [np.count_nonzero(counts[10:20])]


@pytest.mark.parametrize("on_disk", FORMS)
def test_spans_cover_every_cell_once_and_hold_about_what_was_asked(
    counts: np.ndarray, make: Make, on_disk: str
) -> None:
    source = make_reader(count_matrix(make(counts, on_disk)))
    for n_values in (1, 100, 10**6):
        spans = source.spans(n_values)
        assert [cell for first, last in spans for cell in range(first, last)] == list(range(60))
        whole = len(source.values_before(np.arange(1))) and n_values + 24
        for first, last in spans:
            rows = np.arange(first, last)
            rows = rows if source.cells is None else source.cells[rows]
            held = (source.values_before(rows + 1) - source.values_before(rows)).sum()
            assert held <= whole


def test_a_view_of_a_file_does_not_load_it(counts: np.ndarray, make: Make) -> None:
    view = make(counts, "backed view csr")
    matrix = count_matrix(view)
    assert matrix.on_disk
    assert matrix.cells.tolist() == list(range(118, -1, -2))
    assert matrix.genes.tolist() == list(range(1, 24))
