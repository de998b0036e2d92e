"""Encoder against the same sums in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellvae.nn import Encoder
from cellvae.nn.posterior import bounded_exp

SIZES = (3, 1, 2)


@pytest.mark.parametrize("activation", ["exp", "softplus"])
def test_the_posterior_is_that_computed_by_hand(
    activation: str,
    codes: list[Tensor],
    by_hand: Callable[..., np.ndarray],
    worn: Callable[[nn.Module], nn.Module],
) -> None:
    torch.manual_seed(0)
    encoder = Encoder(4, 2, SIZES, n_layers=2, n_hidden=6, var_activation=activation)
    worn(encoder)
    features = torch.randn(9, 4)
    hidden = by_hand(encoder.encoder, features.double().numpy(), codes, SIZES, True)
    weights = {name: value.double().numpy() for name, value in encoder.state_dict().items()}
    mean = hidden @ weights["mean_encoder.weight"].T + weights["mean_encoder.bias"]
    raw = hidden @ weights["var_encoder.weight"].T + weights["var_encoder.bias"]
    variance = (np.exp(raw) if activation == "exp" else np.log1p(np.exp(raw))) + 1e-4
    with torch.no_grad():
        posterior = encoder(features, codes)
    assert posterior.loc.shape == (9, 2)
    np.testing.assert_allclose(posterior.loc, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(posterior.variance, variance, rtol=1e-4)


def test_the_variance_has_a_floor() -> None:
    encoder = Encoder(4, 2, n_hidden=6, var_eps=0.01).eval()
    nn.init.zeros_(encoder.var_encoder.weight)
    nn.init.constant_(encoder.var_encoder.bias, -100)
    variance = encoder(torch.randn(9, 4)).variance
    torch.testing.assert_close(variance, torch.full((9, 2), 0.01))


def test_draws_carry_gradients_to_mean_and_variance() -> None:
    encoder = Encoder(4, 2, n_hidden=6)
    encoder(torch.randn(9, 4)).rsample().sum().backward()
    assert encoder.mean_encoder.weight.grad.abs().sum() > 0
    assert encoder.var_encoder.weight.grad.abs().sum() > 0


def test_a_logistic_normal_latent_is_fractions() -> None:
    z = torch.randn(3, 9, 4)
    fractions = Encoder(4, 2, distribution="ln").transform(z)
    expected = np.exp(z.numpy()) / np.exp(z.numpy()).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(fractions, expected, rtol=1e-5)
    assert Encoder(4, 2).transform(z) is z


def test_the_variance_of_a_cell_with_huge_counts_is_finite() -> None:
    values = torch.tensor([-3.0, 0.0, 39.0, 90.0, 1e30], requires_grad=True)
    variance = bounded_exp(values)
    torch.testing.assert_close(variance[:3], values[:3].exp(), rtol=0, atol=0)
    assert torch.isfinite(variance.square()).all()
    variance.sum().backward()
    assert values.grad is not None and torch.isfinite(values.grad).all()
