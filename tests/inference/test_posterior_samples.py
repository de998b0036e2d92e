"""Draws of the latent and what the decoder makes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cellvae.inference import posterior_samples as module_of_draws
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.posterior_samples import (
    decode_samples,
    iter_chunks,
    sample_latent,
    sample_posterior,
)
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def batch_of(model: SCVI) -> tuple:
    """All cells of a model as one batch."""
    (_, batch), *_ = plan_pass(model, None, None, 1000).iter_batches()
    return batch


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "normal"])
def test_scales_are_shares_and_rates_are_counts(
    likelihood: str, trained: Callable[..., SCVI]
) -> None:
    model = trained(gene_likelihood=likelihood)
    batch = batch_of(model)
    with inference_mode(model):
        drawn = sample_posterior(model.module, batch, n_samples=4)
    assert drawn.scales.shape == (4, 60, 10)
    np.testing.assert_allclose(drawn.scales.sum(dim=-1), 1, rtol=1e-5)
    sizes = batch.counts.sum(dim=1, keepdim=True)
    np.testing.assert_allclose(drawn.rates, drawn.scales * sizes, rtol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 30])
def test_draws_are_those_of_the_posterior(n_samples: int, trained: Callable[..., SCVI]) -> None:
    model = trained(use_observed_lib_size=False)
    batch = batch_of(model)
    torch.manual_seed(0)
    with inference_mode(model):
        latent = sample_latent(model.module, batch, n_samples)
    assert latent.log_library_posterior is not None
    for values, posterior in (
        (latent.sample, latent.posterior),
        (latent.log_library, latent.log_library_posterior),
    ):
        standard = ((values - posterior.loc) / posterior.stddev).numpy()
        assert standard.shape[0] == n_samples
        assert abs(standard.mean()) < 4.5 / np.sqrt(standard.size)
        assert abs(standard.var() - 1) < 4.5 * np.sqrt(2 / standard.size)


def test_the_decoder_is_told_another_batch_and_the_encoder_is_not(
    trained: Callable[..., SCVI],
) -> None:
    model = trained(encode_covariates=True, dispersion="gene-batch")
    batch = batch_of(model)
    with inference_mode(model):
        latent = sample_latent(model.module, batch)
        own, other = (
            decode_samples(model.module, latent, batch),
            decode_samples(model.module, latent, batch, 2),
        )
        torch.manual_seed(1)
        first = sample_posterior(model.module, batch, transform_batch=2)
        torch.manual_seed(1)
        second = sample_posterior(model.module, batch)
    same = batch.batch.squeeze(1) == 2
    for counts in (own, other):
        assert counts.mean.shape == (1, 60, 10)
    assert torch.allclose(own.mean[:, same], other.mean[:, same])
    assert not torch.isclose(own.mean[:, ~same], other.mean[:, ~same]).all(dim=-1).any()
    log_theta = model.module.px_r[:, 2].detach()
    np.testing.assert_allclose(other.theta.log(), log_theta.expand(1, 60, 10), rtol=1e-4, atol=1e-6)
    assert torch.equal(first.latent.sample, second.latent.sample)


def test_parts_hold_all_draws_in_order(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_of_draws, "MAX_DECODED_ELEMENTS", 60 * 10 * 3)
    model = trained()
    with inference_mode(model):
        latent = sample_latent(model.module, batch_of(model), 8)
    parts = list(iter_chunks(latent, n_genes=10))
    assert [part for part, _ in parts] == [slice(0, 3), slice(3, 6), slice(6, 8)]
    assert torch.equal(torch.cat([few.sample for _, few in parts]), latent.sample)
    assert torch.equal(torch.cat([few.log_library for _, few in parts]), latent.log_library)
