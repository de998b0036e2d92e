"""Sizes of cells: observed, or the lognormal of the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def test_observed_sizes_are_sums_of_counts(trained: Callable[..., SCVI]) -> None:
    model = trained()
    sums = model.adata.X.sum(axis=1, keepdims=True)
    for give_mean in (True, False):
        sizes = model.get_latent_library_size(give_mean=give_mean)
        assert sizes.dtype == np.float32
        np.testing.assert_allclose(sizes, sums, rtol=1e-5)
    few = model.get_latent_library_size(indices=[8, 2])
    np.testing.assert_allclose(few, sums[[8, 2]], rtol=1e-5)


def test_latent_sizes_have_a_lognormal_posterior(trained: Callable[..., SCVI]) -> None:
    model = trained(use_observed_lib_size=False)
    with inference_mode(model):
        (_, batch), *_ = plan_pass(model, None, None, 128).iter_batches()
        posterior = model.module.encode(batch).log_library_posterior
    assert posterior is not None
    lognormal = torch.distributions.LogNormal(posterior.loc, posterior.stddev)
    sizes = model.get_latent_library_size(batch_size=16)
    np.testing.assert_allclose(sizes, lognormal.mean.numpy(), rtol=1e-4)
    torch.manual_seed(0)
    draws = np.stack([model.get_latent_library_size(give_mean=False) for _ in range(100)])
    standard = (np.log(draws) - posterior.loc.numpy()) / posterior.stddev.numpy()
    assert abs(standard.mean()) < 4.5 / np.sqrt(standard.size)
    assert abs(standard.var() - 1) < 4.5 * np.sqrt(2 / standard.size)
