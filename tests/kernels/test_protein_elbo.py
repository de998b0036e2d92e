"""Compiled terms of the proteins against torch's distributions in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from cellvae.distributions import NegativeBinomialMixture
from cellvae.kernels import ProteinElbo, ProteinInputs, protein_elbo
from cellvae.kernels.likelihoods.protein_elbo import N_CONSTANTS

N_CELLS, N_PROTEINS, N_BATCHES, N_PANELS = 37, 11, 3, 2
PENALTY = 0.3
TRAINED = ProteinInputs._fields[N_CONSTANTS:]


def inputs(*, theta_per_cell: bool = False) -> ProteinInputs:
    torch.manual_seed(0)
    shape = (N_CELLS, N_PROTEINS)
    counts = torch.poisson(torch.distributions.Gamma(0.5, 0.02).sample(shape))
    counts[0] = 0
    counts[1, :3] = torch.tensor([4000.0, 1e6, 2.5])
    panel = torch.randint(N_PANELS, (N_CELLS, 1))
    measured = torch.ones(N_PANELS, N_PROTEINS, dtype=torch.bool)
    measured[1, ::2] = False
    return ProteinInputs(
        counts=counts,
        noise=torch.randn(shape),
        batch=torch.randint(N_BATCHES, (N_CELLS, 1)),
        panel=panel,
        measured=measured,
        penalty=torch.tensor(PENALTY),
        loc=2 * torch.randn(shape),
        scale=torch.randn(shape).exp(),
        ratio=1 + torch.randn(shape).relu(),
        logits=6 * torch.randn(shape),
        theta=(2 * torch.randn(shape if theta_per_cell else (N_PROTEINS,))).exp(),
        log_efficiency=torch.randn(N_PROTEINS, N_BATCHES),
        prior_loc=2 * torch.randn(N_PROTEINS, N_PANELS),
        prior_log_scale=torch.randn(N_PROTEINS, N_PANELS),
    )


def expected_terms(given: ProteinInputs) -> ProteinElbo:
    """The same terms by torch's distributions."""
    batch, panel = given.batch.squeeze(-1), given.panel.squeeze(-1)
    log_efficiency = given.log_efficiency.T[batch]
    background = (given.loc + given.scale * given.noise + log_efficiency).exp()
    mixture = NegativeBinomialMixture(
        background, background * given.ratio, given.theta, given.logits
    )
    prior = Normal(given.prior_loc.T[panel], given.prior_log_scale.T[panel].exp())
    kl = kl_divergence(Normal(given.loc, given.scale), prior)
    measured = given.measured[panel]
    density = Normal(0.0, 1.0).log_prob(log_efficiency) - log_efficiency
    always = -density + PENALTY * functional.softplus(-given.logits)
    return ProteinElbo(
        (mixture.log_prob(given.counts) * measured).sum(-1), (kl * measured + always).sum(-1)
    )


def with_gradients(given: ProteinInputs, dtype: torch.dtype) -> ProteinInputs:
    """Copy in a type of numbers, whose trained inputs get gradients."""
    own = {name: getattr(given, name).to(dtype, copy=True).requires_grad_() for name in TRAINED}
    return given._replace(counts=given.counts.to(dtype), noise=given.noise.to(dtype), **own)


@pytest.mark.parametrize("theta_per_cell", [False, True])
def test_terms_and_gradients_are_those_of_the_distributions(theta_per_cell: bool) -> None:
    given = inputs(theta_per_cell=theta_per_cell)
    weights = torch.randn(2, N_CELLS)
    narrow, wide = (with_gradients(given, dtype) for dtype in (torch.float32, torch.float64))

    found, expected = protein_elbo(narrow), expected_terms(wide)
    (torch.stack(found) * weights).sum().backward()
    (torch.stack(expected) * weights).sum().backward()

    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for name in TRAINED:
        gradient = getattr(wide, name).grad
        torch.testing.assert_close(
            getattr(narrow, name).grad.double(),
            gradient,
            rtol=2e-4,
            atol=2e-6 * gradient.abs().max().item(),
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_one_of_both_terms_alone_can_be_differentiated() -> None:
    given = inputs()
    for term in ("log_prob", "kl"):
        narrow, wide = (with_gradients(given, dtype) for dtype in (torch.float32, torch.float64))
        getattr(protein_elbo(narrow), term).sum().backward()
        getattr(expected_terms(wide), term).sum().backward()
        for name in TRAINED:
            gradient = getattr(wide, name).grad
            ours = getattr(narrow, name).grad.double()
            if gradient is None:
                assert ours.count_nonzero() == 0
                continue
            limit = 2e-6 * gradient.abs().max().item()
            torch.testing.assert_close(ours, gradient, rtol=2e-4, atol=limit)


def test_what_was_not_measured_has_no_influence() -> None:
    given = inputs()
    missing = ~given.measured[given.panel.squeeze(-1)]
    assert missing.any()
    other = given._replace(counts=torch.where(missing, 7.0, given.counts))
    for ours, theirs in zip(protein_elbo(given), protein_elbo(other), strict=True):
        assert torch.equal(ours, theirs)


def test_results_do_not_depend_on_memory_layout_or_threads() -> None:
    given = inputs()
    expected = protein_elbo(given)
    turned = given._replace(
        loc=given.loc.T.contiguous().T, prior_loc=given.prior_loc.T.contiguous().T
    )
    n_threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            for ours, theirs in zip(protein_elbo(turned), expected, strict=True):
                assert torch.equal(ours, theirs)
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize("name", ["loc", "logits", "log_efficiency"])
def test_what_is_not_finite_is_noticed(name: str) -> None:
    given = inputs()
    broken: Tensor = getattr(given, name).clone()
    broken[0, 0] = float("nan")
    terms = protein_elbo(given._replace(**{name: broken}))
    assert any(term.isnan().any() for term in terms)
