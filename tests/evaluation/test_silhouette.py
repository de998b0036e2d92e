from __future__ import annotations

import numpy as np
import pytest

from cellvae.errors import InvalidOptionError
from cellvae.evaluation import silhouette


def test_width_of_two_pairs_on_a_line() -> None:
    # Pairs at 0, 1 and 10, 11: a = 1; b = 10.5 for the outer and 9.5 for the inner cells.
    latent = np.array([[0.0], [1.0], [10.0], [11.0]])
    expected = (2 * 9.5 / 10.5 + 2 * 8.5 / 9.5) / 4
    assert silhouette(latent, ["x", "x", "y", "y"]) == pytest.approx(expected, abs=1e-12)


def test_cells_nearer_to_the_other_group_have_a_negative_width() -> None:
    # Pairs 0, 10 and 1, 11: a = 10; b = (1 + 11) / 2 for the outer, (9 + 1) / 2 for the inner.
    latent = np.array([[0.0], [10.0], [1.0], [11.0]])
    expected = (2 * (6 - 10) / 10 + 2 * (5 - 10) / 10) / 4
    assert silhouette(latent, [0, 0, 1, 1]) == pytest.approx(expected, abs=1e-12)


def test_the_only_cell_of_a_group_has_width_zero() -> None:
    latent = np.array([[0.0], [1.0], [10.0]])
    assert silhouette(latent, ["x", "x", "y"]) == pytest.approx((0.9 + 8 / 9 + 0) / 3)


def test_groups_that_cannot_be_told_apart_are_refused() -> None:
    latent = np.arange(4.0)[:, None]
    with pytest.raises(InvalidOptionError, match="two or more values of labels; got 1"):
        silhouette(latent, ["x"] * 4)
    with pytest.raises(InvalidOptionError, match="fewer groups than cells; got 4"):
        silhouette(latent, list("wxyz"))
    with pytest.raises(InvalidOptionError, match="1 of 4 have none"):
        silhouette(latent, ["x", "x", "y", None])
