"""Read-outs of proteins are the rates of the likelihood, capture efficiencies included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.data import synthetic_iid
from cellvae.model import TOTALVI

N_PROTEINS = 4


@pytest.fixture
def model() -> Any:
    """Model of two batches with capture efficiencies; untrained, since read-outs need none."""
    adata = synthetic_iid(batch_size=15, n_genes=10, n_proteins=N_PROTEINS, n_regions=0)
    TOTALVI.setup_anndata(
        adata, protein_expression_obsm_key="protein_expression", batch_key="batch"
    )
    torch.manual_seed(0)
    made: Any = TOTALVI(adata, n_latent=3, n_hidden=8)
    with torch.no_grad():
        made.module.log_per_batch_efficiency.normal_()
        made.module.background_pro_log_beta.normal_()
    made.module.eval()
    made.is_trained = True
    return made


def decoded(model: Any) -> Any:
    """Distribution of the counts of proteins at one sample of the posterior."""
    batch = model.rows.take(torch.arange(model.adata.n_obs))
    torch.manual_seed(1)
    with torch.no_grad():
        return model.module.decode(model.module.encode(batch), batch)["protein"]


def asked(model: Any, **options: Any) -> np.ndarray:
    """Denoised proteins at the same sample, [cells, proteins]."""
    torch.manual_seed(1)
    _, proteins = model.get_normalized_expression(return_numpy=True, silent=True, **options)
    return np.asarray(proteins)


def test_denoised_proteins_are_rates_of_the_likelihood(model: Any) -> None:
    counts = decoded(model)
    foreground = counts.mixture_logits.neg().sigmoid()
    np.testing.assert_allclose(asked(model), counts.mu2 * foreground, rtol=1e-5)
    np.testing.assert_allclose(
        asked(model, include_protein_background=True), counts.mean, rtol=1e-5
    )
    expected = counts.mu2 * foreground
    np.testing.assert_allclose(
        asked(model, scale_protein=True), expected / expected.sum(-1, keepdim=True), rtol=1e-5
    )


def test_read_outs_are_proportional_to_the_efficiency_of_the_batch(model: Any) -> None:
    second = (model.adata.obs["batch"] == "batch_1").to_numpy()
    before, state = asked(model), torch.get_rng_state()
    foreground = model.get_protein_foreground_probability(return_numpy=True, silent=True)
    torch.set_rng_state(state)
    background = model.get_protein_background_mean(silent=True)
    torch.set_rng_state(state)
    with torch.no_grad():
        model.module.log_per_batch_efficiency[0, 1] += np.log(2)
    factors = np.ones_like(before)
    factors[second, 0] = 2
    np.testing.assert_allclose(asked(model), before * factors, rtol=1e-5)
    torch.set_rng_state(state)
    again = model.get_protein_foreground_probability(return_numpy=True, silent=True)
    np.testing.assert_allclose(again, foreground, rtol=1e-5)
    torch.set_rng_state(state)
    np.testing.assert_allclose(
        model.get_protein_background_mean(silent=True), background * factors, rtol=1e-5
    )


def test_cells_of_another_batch_have_its_efficiency(model: Any) -> None:
    first, second = asked(model, transform_batch="batch_0"), asked(model, transform_batch="batch_1")
    with torch.no_grad():
        model.module.log_per_batch_efficiency[:, 1] += 1
    np.testing.assert_allclose(asked(model, transform_batch="batch_0"), first, rtol=1e-5)
    np.testing.assert_allclose(asked(model, transform_batch="batch_1"), second * np.e, rtol=1e-5)
    both = asked(model, transform_batch=["batch_0", "batch_1"])
    np.testing.assert_allclose(both, (first + second * np.e) / 2, rtol=1e-5)


def test_tables_have_the_names_of_the_proteins(model: Any) -> None:
    adata: AnnData = model.adata
    assert isinstance(model.get_protein_foreground_probability(silent=True), pd.DataFrame)
    one = model.get_protein_foreground_probability(protein_list=["2"], silent=True)
    assert one.shape == (adata.n_obs, 1)
