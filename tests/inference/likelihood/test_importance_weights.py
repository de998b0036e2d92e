"""Importance weights of latent codes against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from cellvae.contracts import CountLatent
from cellvae.errors import InvalidOptionError
from cellvae.inference import get_importance_weights
from cellvae.inference.likelihood.importance_weights import truncate_log_weights
from cellvae.model import SCVI


def asked(model: Any, qz: Normal, zs: torch.Tensor, **kwargs: Any) -> np.ndarray:
    """Weights of codes with the counts that they stand for."""
    px = model.module.decode(CountLatent(qz, zs, zs), None)["rna"]
    return get_importance_weights(
        model, None, None, qz, px, zs, n_mc_samples=3, n_mc_samples_per_pass=2, **kwargs
    )


def test_true_posteriors_need_no_weights(linear: Callable[..., Any]) -> None:
    model = linear()
    qz = model.module.encode(model.take(torch.arange(40))).posterior
    torch.manual_seed(0)
    weights = asked(model, qz, torch.randn(25, 2), batch_size=7)
    np.testing.assert_allclose(weights, 1 / 25, rtol=1e-3)


def test_wrong_posteriors_get_the_ratio_of_the_mixtures(linear: Callable[..., Any]) -> None:
    model = linear()
    qz = model.module.encode(model.take(torch.arange(40))).posterior
    wrong = Normal(qz.loc + 0.1, qz.scale * 1.4)
    torch.manual_seed(0)
    zs = torch.randn(5, 4, 2)
    weights = asked(model, wrong, zs)
    assert weights.shape == (5, 4)

    def density(q: Normal) -> np.ndarray:
        z = zs.reshape(-1, 1, 2).numpy()
        return stats.norm.pdf(z, q.loc.numpy(), q.scale.numpy()).prod(axis=-1).sum(axis=1)

    expected = density(qz) / density(wrong)
    np.testing.assert_allclose(weights.ravel(), expected / expected.sum(), rtol=2e-3)


def test_few_cells_can_stand_for_many(linear: Callable[..., Any]) -> None:
    model = linear()
    qz = model.module.encode(model.take(torch.arange(40))).posterior
    torch.manual_seed(0)
    weights = asked(model, qz, torch.randn(6, 2), max_cells=4)
    np.testing.assert_allclose(weights, 1 / 6, rtol=1e-3)


def test_truncation_lowers_the_largest_weights_and_no_other() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5] * 24 + [900.0, 4.0, 1.0, 1.0], dtype=torch.float64)
    most = weights.mean() * 10  # 100 weights
    got = truncate_log_weights(weights.log()).exp()
    torch.testing.assert_close(got, weights.clamp(max=most))
    assert got.max() < weights.max()
    assert got.min() == pytest.approx(0.5)


def test_truncated_weights_are_more_even(linear: Callable[..., Any]) -> None:
    model = linear()
    qz = model.module.encode(model.take(torch.arange(40))).posterior
    narrow = Normal(qz.loc, qz.scale * 0.7)
    torch.manual_seed(0)
    zs = torch.randn(50, 2)
    plain, cut = (asked(model, narrow, zs, truncation=on) for on in (False, True))
    assert cut.sum() == pytest.approx(1)
    assert cut.max() < plain.max()


def test_posteriors_of_other_cells_are_refused(linear: Callable[..., Any]) -> None:
    model = linear()
    qz = Normal(torch.zeros(39, 2), 1.0)
    with pytest.raises(InvalidOptionError, match=r"\[40, 2\]; got \[39, 2\]"):
        asked(model, qz, torch.zeros(3, 2))
    qz = Normal(torch.zeros(40, 2), 1.0)
    with pytest.raises(InvalidOptionError, match="max_cells to be at least 1; got 0"):
        asked(model, qz, torch.zeros(3, 2), max_cells=0)


@pytest.mark.trains
def test_codes_of_cells_are_weighted(trained: Callable[..., SCVI]) -> None:
    model = trained()
    mean, variance = model.get_latent_representation(return_dist=True)
    qz = Normal(torch.from_numpy(mean), torch.from_numpy(variance).sqrt())
    batch = model.rows.take(torch.arange(60))
    torch.manual_seed(0)
    with torch.inference_mode():
        latent = model.module.encode(batch)
        px = model.module.decode(latent, batch)["rna"]
    weights = model.get_importance_weights(None, None, qz, px, latent.sample, n_mc_samples=20)
    assert weights.shape == (60,)
    assert weights.sum() == pytest.approx(1)
    assert weights.std() > 0
