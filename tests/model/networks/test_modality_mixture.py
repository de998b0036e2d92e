"""Mixtures of the posteriors of modalities, and their penalties, beside closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch.distributions import Normal

from cellvae.model.networks.modality_mixture import (
    jeffreys_divergence,
    jeffreys_penalty,
    mean_distance,
    mix_posteriors,
    modality_penalty,
)

N_CELLS, N_LATENT = 6, 3
MEASURED = torch.tensor(
    [
        [True, True, True],
        [True, True, False],
        [True, False, False],
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]
)


def make_posteriors(n: int = 3) -> list[Normal]:
    """Posteriors of some modalities, with gradients."""
    torch.manual_seed(0)
    return [
        Normal(
            torch.randn(N_CELLS, N_LATENT).requires_grad_(),
            torch.rand(N_CELLS, N_LATENT).add(0.2).requires_grad_(),
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("per_cell", [False, True])
def test_mixture_is_the_weighted_sum_over_measured_modalities(per_cell: bool) -> None:
    posteriors = make_posteriors()
    logits = torch.randn(N_CELLS if per_cell else 1, 3)
    mixed = mix_posteriors(posteriors, MEASURED, logits)
    means = np.stack([posterior.loc.detach().numpy() for posterior in posteriors])
    variances = np.stack([posterior.variance.detach().numpy() for posterior in posteriors])
    for cell in range(N_CELLS - 1):
        kept = np.flatnonzero(MEASURED[cell])
        weights = np.exp(logits.expand(N_CELLS, -1)[cell, kept].numpy())
        weights /= weights.sum()
        mean = (weights[:, None] * means[kept, cell]).sum(axis=0)
        variance = (np.sqrt(weights)[:, None] * variances[kept, cell]).sum(axis=0)
        np.testing.assert_allclose(mixed.loc[cell].detach(), mean, rtol=1e-5)
        np.testing.assert_allclose(mixed.variance[cell].detach(), variance, rtol=1e-5)


def test_a_cell_with_one_modality_has_its_posterior_whatever_the_weight() -> None:
    posteriors = make_posteriors()
    mixed = mix_posteriors(posteriors, MEASURED, torch.tensor([[-80.0, 0.0, 80.0]]))
    torch.testing.assert_close(mixed.loc[2], posteriors[0].loc[2])
    torch.testing.assert_close(mixed.scale[4], posteriors[2].scale[4])


def test_a_cell_without_modalities_has_the_prior_and_gradients_stay_finite() -> None:
    posteriors = make_posteriors()
    logits = torch.zeros(1, 3, requires_grad=True)
    mixed = mix_posteriors(posteriors, MEASURED, logits)
    torch.testing.assert_close(mixed.loc[5], torch.zeros(N_LATENT))
    torch.testing.assert_close(mixed.scale[5], torch.ones(N_LATENT))
    (mixed.loc.sum() + mixed.scale.sum()).backward()
    assert torch.isfinite(logits.grad).all()
    for i, posterior in enumerate(posteriors):
        assert torch.isfinite(posterior.loc.grad).all()
        assert (posterior.loc.grad[~MEASURED[:, i]] == 0).all()
        assert (posterior.scale.grad[~MEASURED[:, i]] == 0).all()


def test_jeffreys_divergence_is_the_integral_of_the_log_ratio() -> None:
    first, second = (0.3, 0.5), (-0.4, 1.2)

    def integrand(x: float) -> float:
        p, q = norm(*first), norm(*second)
        return (p.pdf(x) - q.pdf(x)) * (p.logpdf(x) - q.logpdf(x))

    expected = quad(integrand, -12, 12)[0]
    normals = (Normal(*map(torch.tensor, parameters)) for parameters in (first, second))
    assert float(jeffreys_divergence(*normals)) == pytest.approx(expected, rel=1e-5)


def test_jeffreys_penalty_is_the_closed_form_with_roots_of_standard_deviations() -> None:
    first, second = make_posteriors(2)
    v1, v2 = first.scale.detach(), second.scale.detach()  # variances of the widened normals
    gap = (first.loc - second.loc).detach().square()
    expected = ((v1 + gap) / v2 + (v2 + gap) / v1).sum(dim=-1) / 2 - N_LATENT
    torch.testing.assert_close(jeffreys_penalty(first, second).detach(), expected)


def test_mmd_penalty_is_the_sum_of_distances_over_paired_cells_and_modalities() -> None:
    posteriors = make_posteriors()
    expected = 0.0
    for cell in range(N_CELLS):
        kept = np.flatnonzero(MEASURED[cell])
        for a in kept:
            for b in kept[kept > a]:
                gap = (posteriors[a].loc[cell] - posteriors[b].loc[cell]).detach()
                expected += float((gap**2).sum() ** 0.5)
    penalty = modality_penalty("MMD", posteriors, MEASURED)
    torch.testing.assert_close(penalty, torch.full((N_CELLS,), expected))
    penalty[0].backward()
    assert all(torch.isfinite(posterior.loc.grad).all() for posterior in posteriors)


def test_mean_distance_has_a_finite_gradient_where_means_are_equal() -> None:
    posterior = make_posteriors(1)[0]
    mean_distance(posterior, Normal(posterior.loc.detach(), 1.0)).sum().backward()
    assert (posterior.loc.grad == 0).all()


@pytest.mark.parametrize("kind", ["Jeffreys", "MMD", "None"])
def test_one_modality_and_unpaired_cells_have_no_penalty(kind: str) -> None:
    posteriors = make_posteriors()
    one = modality_penalty(kind, posteriors[:1], MEASURED[:, :1])
    unpaired = modality_penalty(kind, posteriors, torch.eye(3, dtype=torch.bool).repeat(2, 1))
    for penalty in (one, unpaired):
        torch.testing.assert_close(penalty.detach(), torch.zeros(N_CELLS))
