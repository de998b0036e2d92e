"""Parameters of the likelihood against those of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cellvae.errors import InvalidOptionError
from cellvae.inference import posterior_samples as module_of_draws
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.posterior_samples import decode_samples, sample_latent
from cellvae.model import SCVI

pytestmark = pytest.mark.trains

NAMES = {
    "zinb": {"mean", "dropout", "dispersions"},
    "nb": {"mean", "dispersions"},
    "poisson": {"mean"},
    "normal": {"mean", "dispersions"},
}


def asked(model: SCVI, **kwargs: Any) -> dict[str, np.ndarray]:
    """Parameters from the same draws every time."""
    torch.manual_seed(0)
    return model.get_likelihood_parameters(**kwargs)


@pytest.mark.parametrize("likelihood", NAMES)
def test_every_likelihood_has_its_parameters(likelihood: str, trained: Callable[..., SCVI]) -> None:
    model = trained(gene_likelihood=likelihood)
    parameters = asked(model)
    assert set(parameters) == NAMES[likelihood]
    assert {values.shape for values in parameters.values()} == {(60, 10)}
    torch.manual_seed(0)
    share = model.get_normalized_expression(return_numpy=True)
    sizes = model.adata.X.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(parameters["mean"], share * sizes, rtol=1e-4)
    if likelihood != "poisson":
        theta = np.exp(model.module.px_r.detach().numpy())
        np.testing.assert_allclose(
            parameters["dispersions"], np.broadcast_to(theta, (60, 10)), rtol=1e-5
        )


def test_dropout_is_a_probability_of_the_network(trained: Callable[..., SCVI]) -> None:
    model = trained()
    torch.manual_seed(0)
    with inference_mode(model):
        (_, batch), *_ = plan_pass(model, None, None, 128).iter_batches()
        logits = decode_samples(model.module, sample_latent(model.module, batch), batch).zi_logits[
            0
        ]
    expected = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(asked(model)["dropout"], expected, rtol=1e-4)


@pytest.mark.parametrize("dispersion", ["gene-batch", "gene-cell"])
def test_dispersions_differ_by_what_the_model_says(
    dispersion: str, trained: Callable[..., SCVI]
) -> None:
    dispersions = asked(trained(dispersion=dispersion))["dispersions"]
    same_batch = np.allclose(dispersions[0], dispersions[3], rtol=1e-6)
    assert same_batch == (dispersion == "gene-batch")
    assert not np.allclose(dispersions[0], dispersions[1], rtol=1e-6)


def test_means_over_draws_are_those_of_all_draws(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(dispersion="gene-cell")
    each = asked(model, n_samples=6, batch_size=25)
    assert each["mean"].shape == (6, 60, 10)
    monkeypatch.setattr(module_of_draws, "MAX_DECODED_ELEMENTS", 25 * 10 * 4)
    mean = asked(model, n_samples=6, give_mean=True, batch_size=25)
    for name, values in mean.items():
        assert each[name].std(axis=0).max() > 0
        np.testing.assert_allclose(values, each[name].mean(axis=0), rtol=1e-5)
    several = asked(model, n_samples=6, batch_size=25)
    np.testing.assert_allclose(several["dropout"], each["dropout"], rtol=1e-5)


def test_no_samples_are_refused(trained: Callable[..., SCVI]) -> None:
    with pytest.raises(InvalidOptionError, match="n_samples to be at least 1; got 0"):
        trained().get_likelihood_parameters(n_samples=0)
