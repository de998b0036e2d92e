"""UMAP of a latent representation, and which cells are shown."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.plotting import UMAPResult, compute_umap, embedding, umap
from cellvae.plotting import layout as code
from cellvae.plotting.sampling import stratified_sample


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout that is the first two columns of the latent."""
    monkeypatch.setattr(code, "fit_layout", lambda points, seed: points[:, :2])


def blobs(n: int, n_blobs: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points around far centres, and the centre of each."""
    generator = np.random.default_rng(0)
    groups = generator.integers(n_blobs, size=n)
    centres = 20 * np.eye(n_blobs, 10)
    return (centres[groups] + generator.normal(size=(n, 10))).astype(np.float32), groups


def test_neighbours_in_the_latent_are_neighbours_on_the_map() -> None:
    from sklearn.neighbors import NearestNeighbors

    points, groups = blobs(400)
    result = compute_umap(points, seed=3)
    assert np.array_equal(result.cells, np.arange(400))
    near = NearestNeighbors(n_neighbors=10).fit(result.coordinates).kneighbors()[1]
    assert (groups[near] == groups[:, None]).mean() > 0.99
    again = compute_umap(points, seed=3)
    assert np.array_equal(again.coordinates, result.coordinates)
    assert not np.array_equal(compute_umap(points, seed=4).coordinates, result.coordinates)


def test_a_cell_is_its_own_first_neighbour_even_among_copies() -> None:
    points = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 8, axis=0).astype(np.float32)
    indices, distances = code.nearest_with_self(points, 6)
    assert np.array_equal(indices[:, 0], np.arange(40))
    assert (indices[:, 1:] != np.arange(40)[:, None]).all()
    exact = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, :6]
    np.testing.assert_allclose(distances, exact, atol=1e-5)


@pytest.mark.parametrize(("n", "n_latent"), [(5, 1), (14, 2), (16, 10), (40, 50)])
def test_few_cells_have_a_map_too(n: int, n_latent: int) -> None:
    points = np.random.default_rng(0).normal(size=(n, n_latent))
    assert np.isfinite(compute_umap(points).coordinates).all()
    assert np.isfinite(compute_umap(np.zeros((n, n_latent))).coordinates).all()


@pytest.mark.parametrize(
    ("latent", "kwargs", "match"),
    [
        (np.zeros(9), {}, "got shape"),
        (np.zeros((4, 3)), {}, "at least 5 cells"),
        (np.full((9, 3), np.nan), {}, "finite numbers"),
        (np.zeros((9, 3)), {"strata": [["a"] * 8]}, "for each of 9 cells; got 8"),
        (np.zeros((9, 3)), {"max_cells": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(latent: Any, kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidOptionError, match=match):
        compute_umap(latent, **kwargs)


@pytest.mark.usefixtures("flat")
def test_many_cells_are_a_part_with_its_shares_and_the_title_says_so() -> None:
    points, groups = blobs(1_000)
    obs = pd.DataFrame({"cell type": groups.astype(str), "age": np.linspace(0, 1, 1_000)})
    result = compute_umap(points, [groups], max_cells=100)
    assert result.coordinates.shape == (100, 2)
    np.testing.assert_array_equal(result.coordinates, points[result.cells, :2])
    assert result.title("batch") == "batch, 100 of 1,000 cells"
    assert result.title() == "100 of 1,000 cells"
    figure = umap(points, obs, ["cell type", "age"], max_cells=100)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:2] == ["cell type, 100 of 1,000 cells", "age, 100 of 1,000 cells"]
    shown = [len(dots.get_offsets()) for dots in figure.axes[0].collections]
    expected = np.bincount(groups) / 10
    assert sum(shown) == 100
    assert np.abs(np.array(shown) - expected).max() <= 1
    # A colour bar, in place of a legend of a thousand numbers.
    assert figure.axes[1].get_legend() is None
    assert len(figure.axes) == 3
    values = figure.axes[1].collections[0].get_array()
    assert set(np.asarray(values)) <= set(obs["age"])


@pytest.mark.usefixtures("flat")
def test_all_cells_need_no_words_in_the_title() -> None:
    points, _ = blobs(50)
    figure = umap(points)
    assert figure.axes[0].get_title(loc="left") == ""
    assert UMAPResult(points[:, :2], np.arange(50), 50).describe_cells() == "50 cells"
    with pytest.raises(UnknownKeyError, match="Did you mean 'batch'"):
        umap(points, pd.DataFrame({"batch": ["a"] * 50}), "bacth")
    with pytest.raises(InvalidOptionError, match="got 49"):
        umap(points, pd.DataFrame(index=range(49)))


def test_missing_numbers_leave_the_others() -> None:
    figure, ax = plt.subplots()
    embedding(np.zeros((3, 2)), pd.Series([1.0, np.nan, 3.0]), ax, title="age")
    assert ax.get_title(loc="left") == "age"
    plt.close(figure)


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_has_the_size_and_the_shares_asked_for(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.choice(["a", "b", "c", "rare"], size=5_000, p=[0.6, 0.3, 0.0996, 0.0004])
    labels[0] = "rare"
    batch = generator.integers(3, size=5_000)
    n = int(generator.integers(50, 4_999))
    cells = stratified_sample(5_000, n, [labels, batch], seed=seed)
    assert len(np.unique(cells)) == n
    assert np.array_equal(cells, np.sort(cells))
    sizes = pd.crosstab(labels, batch)
    drawn = pd.crosstab(labels[cells], batch[cells]).reindex_like(sizes).fillna(0)
    # One cell for each combination, and of the others a share that is exact to a cell.
    present = (sizes > 0).to_numpy()
    others = (n - present.sum()) * (sizes - 1) / (5_000 - present.sum())
    assert (np.abs(drawn - 1 - others).to_numpy()[present] < 1).all()
    assert (drawn.to_numpy()[present] >= 1).all()
    assert (drawn <= sizes).all(axis=None)


def test_a_sample_is_random_and_follows_its_seed() -> None:
    first, again, other = (stratified_sample(10_000, 50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    counts = np.zeros(20)
    for seed in range(400):
        counts[stratified_sample(20, 5, [[0] * 10 + [1] * 10], seed=seed)] += 1
    # Each cell is drawn in a quarter of the samples: 100 of 400, with a deviation below 9.
    assert (np.abs(counts - 100) < 40).all()


def test_few_cells_are_all_shown_and_missing_values_are_a_category() -> None:
    assert np.array_equal(stratified_sample(4, 10, [["a"] * 4]), np.arange(4))
    column = np.array(["a"] * 98 + [None] * 2, dtype=object)
    assert (stratified_sample(100, 10, [column]) >= 98).sum() == 1


def test_more_combinations_than_cells_leave_out_the_last_column() -> None:
    labels = np.repeat(["a", "b"], [980, 20])
    cells = stratified_sample(1_000, 100, [labels, np.arange(1_000)])
    assert len(cells) == 100
    assert (labels[cells] == "b").sum() in (2, 3)
