"""Number of epochs by default."""

from __future__ import annotations

import pytest

from cellvae.errors import TrainingWarning
from cellvae.train.options.default_epochs import default_epochs


@pytest.mark.parametrize(
    ("n_cells", "epochs"),
    [(100, 400), (20_000, 400), (20_001, 400), (40_000, 200), (100_000, 80), (1_000_000, 8)],
)
def test_epochs_follow_the_heuristic_of_scvi_tools(n_cells: int, epochs: int) -> None:
    assert default_epochs(n_cells) == epochs


@pytest.mark.parametrize("n_cells", [8_000_000, 100_000_000])
def test_one_epoch_comes_with_a_warning(n_cells: int) -> None:
    with pytest.warns(TrainingWarning, match="training for 1 epoch"):
        assert default_epochs(n_cells) == 1
