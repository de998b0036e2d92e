"""Marginal likelihoods against closed forms and other ways to compute them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from scipy.special import logsumexp

from cellvae.data.batches.batching import iter_batches
from cellvae.errors import InvalidOptionError
from cellvae.inference import get_marginal_ll
from cellvae.model import SCVI


@pytest.mark.parametrize(("n", "per_pass"), [(1, 1), (7, 3), (10, 4), (5, 100)])
def test_with_the_true_posterior_every_number_of_draws_gives_the_closed_form(
    linear: Callable[..., Any], n: int, per_pass: int
) -> None:
    model = linear()
    got = get_marginal_ll(
        model, n_mc_samples=n, n_mc_samples_per_pass=per_pass, return_mean=False, batch_size=16
    )
    np.testing.assert_allclose(got, model.module.log_marginal(model.values), atol=2e-5)


@pytest.mark.parametrize("per_pass", [1, 300, 4000, 5000])
def test_with_a_wrong_posterior_weights_correct_it(
    linear: Callable[..., Any], per_pass: int
) -> None:
    model = linear(shift=0.2, widen=1.5)
    torch.manual_seed(0)
    n = 4000 if per_pass > 1 else 1000
    got = get_marginal_ll(
        model, n_mc_samples=n, n_mc_samples_per_pass=per_pass, return_mean=False, batch_size=40
    )
    assert got.dtype == np.float64
    error = got - model.module.log_marginal(model.values)
    assert np.abs(error).max() < 0.25
    assert abs(error.mean()) < 0.015


def test_the_mean_of_likelihoods_has_no_bias_for_any_number_of_draws(
    linear: Callable[..., Any],
) -> None:
    # The likelihood itself is unbiased; a wrong number of draws would show as a factor of 9 / 5.
    model = linear(shift=0.1, widen=1.3)
    torch.manual_seed(0)
    runs = np.stack(
        [
            get_marginal_ll(model, n_mc_samples=5, n_mc_samples_per_pass=3, return_mean=False)
            for _ in range(400)
        ]
    )
    mean = logsumexp(runs, axis=0) - np.log(len(runs))
    assert abs((mean - model.module.log_marginal(model.values)).mean()) < 0.02


def test_cells_are_answered_in_the_order_asked(linear: Callable[..., Any]) -> None:
    model = linear()
    whole = model.module.log_marginal(model.values)
    got = get_marginal_ll(model, indices=[7, 3, 7], n_mc_samples=1, return_mean=False)
    np.testing.assert_allclose(got, whole[[7, 3, 7]], atol=2e-5)
    mean = get_marginal_ll(model, n_mc_samples=1)
    assert isinstance(mean, float)
    assert mean == pytest.approx(whole.mean(), abs=2e-5)


@pytest.mark.trains
@pytest.mark.parametrize("config", [{}, {"use_observed_lib_size": False}])
def test_one_draw_is_the_bound_and_more_lie_above_it(
    trained: Callable[..., SCVI], config: dict[str, Any]
) -> None:
    model = trained(**config)
    torch.manual_seed(0)
    bound = np.mean([model.get_elbo() for _ in range(30)])
    one = np.mean([model.get_marginal_ll(n_mc_samples=1) for _ in range(30)])
    many = model.get_marginal_ll(n_mc_samples=300, n_mc_samples_per_pass=50)
    assert one == pytest.approx(bound, abs=0.3)
    assert bound < many < bound + 40


@pytest.mark.trains
def test_a_grid_over_the_latent_gives_the_same(trained: Callable[..., SCVI]) -> None:
    model = trained(n_latent=1)
    grid = torch.linspace(-8, 8, 3001)
    _, batch = next(iter_batches(model.rows, torch.arange(20), 20))
    with torch.inference_mode():
        latent = model.module.encode(batch)
        z = grid[:, None, None].expand(-1, 20, 1)
        wide = latent._replace(sample=z, log_library=latent.log_library.expand(3001, -1, -1))
        likelihood = (
            model.module.decode(wide, batch)["rna"].log_prob(batch.counts).double().sum(dim=-1)
        )
    prior = -0.5 * grid.double() ** 2 - 0.5 * np.log(2 * np.pi)
    expected = (likelihood + prior[:, None]).logsumexp(dim=0) + np.log(16 / 3000)
    torch.manual_seed(0)
    got = model.get_marginal_ll(
        indices=range(20), n_mc_samples=3000, n_mc_samples_per_pass=500, return_mean=False
    )
    error = got - expected.numpy()
    assert np.abs(error).max() < 0.2
    assert abs(error.mean()) < 0.03


@pytest.mark.trains
def test_a_logistic_normal_latent_is_weighted_before_it_is_transformed(
    trained: Callable[..., SCVI],
) -> None:
    model = trained(latent_distribution="ln")
    torch.manual_seed(0)
    bound = np.mean([model.get_elbo() for _ in range(30)])
    one = np.mean([model.get_marginal_ll(n_mc_samples=1) for _ in range(30)])
    assert one == pytest.approx(bound, abs=0.3)


@pytest.mark.trains
def test_numbers_below_one_are_refused(trained: Callable[..., SCVI]) -> None:
    model = trained()
    with pytest.raises(InvalidOptionError, match="n_mc_samples to be at least 1; got 0"):
        model.get_marginal_ll(n_mc_samples=0)
    with pytest.raises(InvalidOptionError, match="n_mc_samples_per_pass to be at least 1"):
        model.get_marginal_ll(n_mc_samples_per_pass=-1)


@pytest.mark.trains
def test_real_cells_lie_above_their_bound(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")[:300, ::20].copy()
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=32)
    model.train(max_epochs=5, accelerator="cpu", seed=0, enable_progress_bar=False)
    torch.manual_seed(0)
    elbo = model.get_elbo(return_mean=False)
    marginal = model.get_marginal_ll(n_mc_samples=50, n_mc_samples_per_pass=10, return_mean=False)
    assert np.isfinite(marginal).all()
    assert (marginal - elbo).mean() > 0.5
