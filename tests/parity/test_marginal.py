"""Marginal likelihoods of the same weights are those of scvi-tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData

from cellvae.model import SCVI


@pytest.mark.parametrize("name", ["observed", "latent"])
def test_marginal_likelihoods_are_those_of_scvi_tools(name: str) -> None:
    pinned = np.load(Path(__file__).with_name("marginal.npz"))
    adata = AnnData(pinned["counts"])
    adata.obs["batch"] = np.array(["a", "b"])[np.arange(60) % 2]
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(
        adata,
        n_hidden=8,
        n_latent=2,
        use_observed_lib_size=name == "observed",
        gene_likelihood="nb",
    )
    prefix = f"{name}/weights/"
    weights = {key: torch.from_numpy(pinned[prefix + key]) for key in model.module.state_dict()}
    model.module.load_state_dict(weights)
    model.is_trained = True
    torch.manual_seed(0)
    got = model.get_marginal_ll(
        n_mc_samples=10_000, n_mc_samples_per_pass=500, return_mean=False, batch_size=60
    )
    error = got - pinned[f"{name}/marginal"]
    # A few cells have heavy-tailed weights, in both packages.
    assert abs(np.median(error)) < 0.03
    assert np.median(np.abs(error)) < 0.1
