"""Aggregated posteriors and abundances against brute force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from scipy import stats
from scipy.special import logsumexp

from cellvae.errors import InvalidOptionError, UnknownKeyError
from cellvae.inference.latent.aggregated_posterior import mixture_log_prob, normal_mixture_log_prob
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def brute_force(
    points: np.ndarray, means: np.ndarray, variances: np.ndarray, dof: float | None
) -> np.ndarray:
    """Logarithm of the density of a mixture of equal weights, [points]."""
    z, m, s = points[:, None].astype(float), means.astype(float), np.sqrt(variances.astype(float))
    each = stats.norm.logpdf(z, m, s) if dof is None else stats.t.logpdf(z, dof, m, s)
    return logsumexp(each.sum(axis=-1), axis=1) - np.log(len(means))


@pytest.mark.parametrize("dof", [None, 3.0, 7.5])
def test_the_density_is_the_mean_of_those_of_the_cells(
    trained: Callable[..., SCVI], dof: float | None
) -> None:
    model = trained()
    few = [5, 2, 40]
    mean, variance = model.get_latent_representation(indices=few, return_dist=True)
    points = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    mixed = model.get_aggregated_posterior(indices=few, dof=dof, batch_size=2)
    got = mixed.log_prob(torch.from_numpy(points))
    assert got.shape == (30,)
    np.testing.assert_allclose(got, brute_force(points, mean, variance, dof), rtol=1e-4, atol=1e-4)


def test_the_tails_are_those_of_three_degrees_of_freedom_by_default(
    trained: Callable[..., SCVI],
) -> None:
    model = trained()
    one = model.get_aggregated_posterior(indices=[0]).component_distribution.base_dist
    assert (one.df == 3).all()


def test_draws_have_the_mean_and_variance_of_the_mixture(trained: Callable[..., SCVI]) -> None:
    model = trained()
    mean, variance = model.get_latent_representation(return_dist=True)
    torch.manual_seed(0)
    mixed = model.get_aggregated_posterior(dof=None)
    draws = mixed.sample((20_000,)).numpy()
    total = variance.mean(axis=0) + mean.var(axis=0)
    np.testing.assert_allclose(draws.mean(axis=0), mean.mean(axis=0), atol=4 * total.max() / 141)
    np.testing.assert_allclose(draws.var(axis=0), total, rtol=0.06)
    mixed.log_prob(torch.zeros(3, requires_grad=True)).backward()


@pytest.mark.parametrize("dof", [None, 3.0])
def test_parts_of_points_give_the_same_density(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch, dof: float | None
) -> None:
    mixed = trained().get_aggregated_posterior(dof=dof)
    points = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))
    whole = mixed.log_prob(points)
    monkeypatch.setattr("cellvae.inference.latent.aggregated_posterior.MAX_ELEMENTS", 400)
    torch.testing.assert_close(mixture_log_prob(mixed, points), whole)


def test_far_and_narrow_normals_keep_their_precision() -> None:
    random = np.random.default_rng(0)
    means = 30 + random.normal(size=(50, 10))
    deviations = random.uniform(1e-3, 1e-2, (50, 10))
    points = means[:20] + deviations[:20] * random.normal(size=(20, 10))
    got = normal_mixture_log_prob(*map(torch.from_numpy, (means, deviations, points)))
    expected = brute_force(points, means, deviations**2, None)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("dof", [0, -1.0, float("inf"), float("nan")])
def test_impossible_degrees_of_freedom_are_refused(
    trained: Callable[..., SCVI], dof: float
) -> None:
    with pytest.raises(InvalidOptionError, match="dof"):
        trained().get_aggregated_posterior(dof=dof)


@pytest.mark.parametrize("dof", [None, 3.0])
def test_abundances_are_densities_of_each_sample(
    trained: Callable[..., SCVI], dof: float | None
) -> None:
    model = trained()
    adata = model.adata.copy()
    table = model.differential_abundance(adata, sample_key="label", dof=dof, batch_size=13)
    mean, variance = model.get_latent_representation(return_dist=True)
    assert list(table.columns) == ["x", "y"]
    assert table.index.equals(adata.obs_names)
    for name in table:
        cells = (adata.obs["label"] == name).to_numpy()
        expected = brute_force(mean, mean[cells], variance[cells], dof)
        np.testing.assert_allclose(table[name], expected, rtol=1e-5, atol=1e-5)
    assert adata.obsm["da_log_probs"].equals(table)


def test_few_cells_can_stand_for_a_sample(trained: Callable[..., SCVI]) -> None:
    model = trained()
    adata = model.adata.copy()
    full = model.differential_abundance(adata, sample_key="label")
    same = model.differential_abundance(adata, sample_key="label", num_cells_posterior=500)
    np.testing.assert_allclose(full, same, rtol=1e-9)
    torch.manual_seed(0)
    one = model.differential_abundance(adata, sample_key="label", num_cells_posterior=1)
    mean, variance = model.get_latent_representation(return_dist=True)
    alone = [brute_force(mean, mean[[i]], variance[[i]], None) for i in range(0, 60, 2)]
    assert min(np.abs(one["x"] - column).max() for column in alone) < 1e-4


def test_a_part_of_the_cells_can_be_judged(trained: Callable[..., SCVI]) -> None:
    model = trained()
    adata = model.adata.copy()
    part = adata[[9, 4, 5]].copy()
    table = model.differential_abundance(adata, part, sample_key="label")
    whole = model.differential_abundance(adata, sample_key="label")
    np.testing.assert_allclose(table, whole.iloc[[9, 4, 5]], rtol=1e-5, atol=1e-5)
    assert part.obsm["da_log_probs"].equals(table)


def test_columns_that_are_missing_are_refused(trained: Callable[..., SCVI]) -> None:
    model = trained()
    with pytest.raises(InvalidOptionError, match="sample_key"):
        model.differential_abundance()
    with pytest.raises(UnknownKeyError, match="Did you mean 'label'"):
        model.differential_abundance(sample_key="labl")
    with pytest.raises(InvalidOptionError, match="num_cells_posterior to be at least 1; got 0"):
        model.differential_abundance(sample_key="label", num_cells_posterior=0)


def test_cell_types_of_real_cells_are_abundant_where_they_are(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")[::2, ::10].copy()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=64)
    model.train(max_epochs=25, accelerator="cpu", seed=0, enable_progress_bar=False)
    table = model.differential_abundance(sample_key="cell_type")
    large = adata.obs["cell_type"].value_counts().index[:3]
    guess = table[[str(name) for name in large]].idxmax(axis=1)
    mine = adata.obs["cell_type"].isin(large)
    accuracy = (guess[mine] == adata.obs["cell_type"][mine].astype(str)).mean()
    assert accuracy > 0.7  # 0.34 by chance
