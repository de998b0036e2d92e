"""Prior of the background of proteins, from cells whose background is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cellvae.model.components.background_prior import cell_background, protein_background_by_panel


class Batch(NamedTuple):
    """Proteins and panels of cells."""

    proteins: Tensor
    panel: Tensor


class Rows:
    """Cells in memory."""

    def __init__(self, proteins: np.ndarray, panel: np.ndarray) -> None:
        self.batch = Batch(torch.from_numpy(proteins).float(), torch.from_numpy(panel)[:, None])

    def __len__(self) -> int:
        return len(self.batch.proteins)

    def take(self, cells: Tensor) -> Batch:
        return Batch(*(field[cells] for field in self.batch))


def two_clouds(rng: np.random.Generator, n_cells: int, background: float) -> np.ndarray:
    """Counts of 40 proteins of each cell, a quarter of them foreground."""
    logs = rng.normal(background, 0.2, (n_cells, 40))
    logs[:, :10] = rng.normal(background + 4, 0.2, (n_cells, 10))
    return np.expm1(logs).round()


def test_background_is_the_lower_component_of_each_panel() -> None:
    rng = np.random.default_rng(0)
    proteins = np.concatenate([two_clouds(rng, 60, 2.0), two_clouds(rng, 4, 3.0)])
    panel = np.repeat([0, 1], [60, 4])
    means, scales = protein_background_by_panel(Rows(proteins, panel), np.ones((3, 40), dtype=bool))
    np.testing.assert_allclose(means, [2.0, 3.0, 0.0], atol=0.05)
    # The standard deviation of an average of 100 cells, also where these are four; a panel without
    # cells has 1.
    np.testing.assert_allclose(scales, [0.02, 0.02, 1.0], rtol=0.3)


def test_unmeasured_proteins_do_not_count_and_few_are_no_estimate() -> None:
    rng = np.random.default_rng(1)
    proteins = two_clouds(rng, 30, 2.0)
    with_zeros = np.concatenate([proteins, np.zeros((30, 30))], axis=1)
    measured = np.arange(70) < 40
    panel = np.zeros(30, dtype=np.int64)
    whole = protein_background_by_panel(Rows(proteins, panel), np.ones((1, 40), dtype=bool))
    masked = protein_background_by_panel(Rows(with_zeros, panel), measured[None])
    assert torch.equal(whole[0], masked[0]) and torch.equal(whole[1], masked[1])
    few = protein_background_by_panel(Rows(with_zeros, panel), (np.arange(70) < 4)[None])
    assert few[0].tolist() == [0.0] and few[1].tolist() == pytest.approx([0.05])


@pytest.mark.parametrize("counts", [np.zeros(20), np.full(20, 7.0)])
def test_cells_with_equal_counts_have_the_default(counts: np.ndarray) -> None:
    assert cell_background(counts) == (0.0, 0.05)


def test_a_panel_of_one_empty_cell_is_finite() -> None:
    rows = Rows(np.zeros((1, 12)), np.zeros(1, dtype=np.int64))
    means, scales = protein_background_by_panel(rows, np.ones((1, 12), dtype=bool))
    assert means.tolist() == [0.0] and scales.tolist() == pytest.approx([0.005])
