"""Evidence lower bound and reconstruction error against scipy and closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import stats

from cellvae.data.batches.batching import iter_batches
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def kl_of(means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Divergence of normal posteriors from the standard normal, nats per cell."""
    m, v = means.astype(np.float64), variances.astype(np.float64)
    return 0.5 * (v + m**2 - 1 - np.log(v)).sum(axis=1)


def asked(ask: Callable, **kwargs: object) -> np.ndarray:
    """Answer for each cell from the same draws every time."""
    torch.manual_seed(0)
    answer = ask(return_mean=False, **kwargs)
    return answer["reconstruction_loss"] if isinstance(answer, dict) else answer


def test_means_are_scalars_of_numpy(trained: SCVI) -> None:
    elbo = trained.get_elbo()
    error = trained.get_reconstruction_error()["reconstruction_loss"]
    marginal = trained.get_marginal_ll(n_mc_samples=2)
    for value in (elbo, error, marginal):
        assert type(value) is np.float64
        assert value.ndim == 0
        assert value.item() == float(value)
    torch.manual_seed(0)
    mean = trained.get_elbo()
    np.testing.assert_allclose(mean, asked(trained.get_elbo).mean(), rtol=1e-12)


def test_the_bound_is_minus_reconstruction_and_divergence(trained: SCVI) -> None:
    kl = kl_of(*trained.get_latent_representation(return_dist=True))
    error = asked(trained.get_reconstruction_error)
    elbo = asked(trained.get_elbo)
    assert elbo.shape == error.shape == (70,)
    assert elbo.dtype == np.float64
    np.testing.assert_allclose(elbo, -(error + kl), rtol=1e-5)
    assert (elbo < 0).all()
    assert (error > 0).all()


def test_means_are_those_over_cells(trained: SCVI) -> None:
    each = asked(trained.get_elbo, batch_size=30)
    torch.manual_seed(0)
    mean = trained.get_elbo(batch_size=30)
    assert isinstance(mean, float)
    assert mean == pytest.approx(each.mean(), rel=1e-12)
    errors = asked(trained.get_reconstruction_error, batch_size=30)
    torch.manual_seed(0)
    answer = trained.get_reconstruction_error(batch_size=30)
    assert answer == {"reconstruction_loss": pytest.approx(errors.mean(), rel=1e-12)}


def test_the_sign_is_opposite_to_that_of_the_history(
    make: Callable[..., SCVI], train: Callable[..., SCVI], cells: Callable[..., AnnData]
) -> None:
    model = train(make(cells()), max_epochs=2, check_val_every_n_epoch=1)
    recorded = model.history["elbo_validation"]["elbo_validation"].iloc[-1]
    draws = [model.get_elbo(indices=model.validation_indices) for _ in range(20)]
    assert recorded > 0
    assert np.mean(draws) == pytest.approx(-recorded, rel=0.05)


@pytest.mark.parametrize("likelihood", ["nb", "poisson", "normal"])
def test_reconstruction_errors_are_those_of_scipy(
    likelihood: str,
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
    cells: Callable[..., AnnData],
) -> None:
    model = train(make(cells(), gene_likelihood=likelihood))
    error = asked(model.get_reconstruction_error)
    _, batch = next(iter_batches(model.rows, torch.arange(70), 70))
    with torch.no_grad():
        torch.manual_seed(0)
        z = model.module.encode(batch).sample
        one_hot = torch.nn.functional.one_hot(batch.batch.squeeze(-1), 3).float()
        hidden = model.module.decoder.px_decoder.fc_layers[0](torch.cat([z, one_hot], dim=1))
        logits = model.module.decoder.px_scale_decoder[0](hidden).double().numpy()
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    counts = model.adata.X.astype(np.float64)
    mean = counts.sum(axis=1, keepdims=True) * share
    if likelihood == "poisson":
        log_probability = stats.poisson.logpmf(counts, mean)
    else:
        theta = model.module.px_r.exp().detach().double().numpy()
        log_probability = (
            stats.nbinom.logpmf(counts, theta, theta / (theta + mean))
            if likelihood == "nb"
            else stats.norm.logpdf(counts, mean, theta)
        )
    np.testing.assert_allclose(error, -log_probability.sum(axis=1), rtol=2e-4)


def test_latent_sizes_add_their_divergence_from_those_of_the_batch(
    make: Callable[..., SCVI], train: Callable[..., SCVI], cells: Callable[..., AnnData]
) -> None:
    model = train(make(cells(), use_observed_lib_size=False))
    _, batch = next(iter_batches(model.rows, torch.arange(70), 70))
    with torch.no_grad():
        q = model.module.encode(batch).log_library_posterior
    assert q is not None
    m, v = (x.double().numpy().squeeze(1) for x in (q.loc, q.variance))
    counts, codes = model.adata.X.astype(np.float64), np.arange(70) % 3
    logs = np.log(counts.sum(axis=1))
    prior_mean = np.array([logs[codes == b].mean() for b in range(3)])[codes]
    prior_var = np.array([logs[codes == b].var() for b in range(3)])[codes]
    kl_size = 0.5 * (np.log(prior_var / v) + (v + (m - prior_mean) ** 2) / prior_var - 1)
    kl = kl_of(*model.get_latent_representation(return_dist=True)) + kl_size
    total = asked(model.get_elbo) + asked(model.get_reconstruction_error)
    np.testing.assert_allclose(total, -kl, rtol=1e-4)
