"""Latent representations against second ways to compute them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def hidden_of(model: SCVI, counts: np.ndarray) -> np.ndarray:
    """Hidden layer of the encoder of a model without covariates in it, by numpy."""
    weights = {k: v.double().numpy() for k, v in model.module.z_encoder.state_dict().items()}
    layer = {k.removeprefix("encoder.fc_layers.Layer 0."): v for k, v in weights.items()}
    hidden = np.log1p(counts) @ layer["0.weight"].T + layer["0.bias"]
    hidden = (hidden - layer["1.running_mean"]) / np.sqrt(layer["1.running_var"] + 1e-3)
    return np.maximum(hidden * layer["1.weight"] + layer["1.bias"], 0)


def test_mean_and_variance_are_those_of_the_network(trained: SCVI) -> None:
    hidden = hidden_of(trained, trained.adata.X.astype(np.float64))
    weights = {k: v.double().numpy() for k, v in trained.module.z_encoder.state_dict().items()}
    mean = hidden @ weights["mean_encoder.weight"].T + weights["mean_encoder.bias"]
    log_variance = hidden @ weights["var_encoder.weight"].T + weights["var_encoder.bias"]
    means, variances = trained.get_latent_representation(return_dist=True)
    assert means.shape == variances.shape == (70, 3)
    np.testing.assert_allclose(means, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variances, np.exp(log_variance) + 1e-4, rtol=1e-4)


def test_the_representation_is_the_mean(trained: SCVI) -> None:
    means, _ = trained.get_latent_representation(return_dist=True)
    representation = trained.get_latent_representation()
    assert isinstance(representation, np.ndarray)
    assert representation.dtype == np.float32
    assert np.array_equal(representation, means)


def test_draws_have_the_mean_and_variance_of_the_posterior(trained: SCVI) -> None:
    means, variances = trained.get_latent_representation(return_dist=True)
    torch.manual_seed(0)
    draws = np.stack([trained.get_latent_representation(give_mean=False) for _ in range(60)])
    standard = (draws - means) / np.sqrt(variances)  # 60 x 70 x 3 standard normal numbers
    n = standard.size
    assert abs(standard.mean()) < 4 / np.sqrt(n)
    assert abs(standard.var() - 1) < 4 * np.sqrt(2 / n)


def test_draws_follow_torchs_global_seed(trained: SCVI) -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(trained.get_latent_representation(give_mean=False))
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_a_logistic_normal_latent_has_the_mean_of_its_shares(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    model = train(make(adata, latent_distribution="ln"))
    few = [4, 0, 9]
    means, variances = model.get_latent_representation(indices=few, return_dist=True)
    random = np.random.default_rng(0)
    z = means + np.sqrt(variances) * random.normal(size=(100_000, *means.shape))
    shares = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    expected, spread = shares.mean(axis=0), shares.std(axis=0)
    torch.manual_seed(0)
    got = model.get_latent_representation(indices=few, mc_samples=20_000)
    assert (np.abs(got - expected) < 5 * spread / np.sqrt(20_000)).all()
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)
    draw = model.get_latent_representation(give_mean=False)
    np.testing.assert_allclose(draw.sum(axis=1), 1, rtol=1e-5)
    assert (draw > 0).all()
    rough = model.get_latent_representation(indices=few, mc_samples=2)
    assert np.abs(rough - expected).max() > np.abs(got - expected).max()


def test_no_samples_are_refused(trained: SCVI) -> None:
    with pytest.raises(InvalidOptionError, match="mc_samples to be at least 1; got 0"):
        trained.get_latent_representation(mc_samples=0)


def test_covariates_that_the_encoder_reads_move_the_latent(
    make: Callable[..., SCVI], train: Callable[..., SCVI], cells: Callable[..., AnnData]
) -> None:
    setup = {"batch_key": "batch", "continuous_covariate_keys": ["age"]}
    other = cells()
    other.obs["age"] += 3
    for encode, moves in ((True, True), (False, False)):
        model = train(make(cells(), setup, encode_covariates=encode))
        own = model.get_latent_representation()
        assert np.array_equal(own, model.get_latent_representation(other)) is not moves
