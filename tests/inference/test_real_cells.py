"""Answers about blood cells of eight donors, of which much is known."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from cellvae.model import SCVI

pytestmark = pytest.mark.trains

MARKERS = {"B cells": "CD79A", "CD14+ Monocytes": "CD14", "NK cells": "GNLY", "CD4 T cells": "CD3D"}


@pytest.fixture(scope="module")
def model(shared_data: Path) -> SCVI:
    """Model of 1,500 of the cells."""
    whole = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    chosen = np.random.default_rng(0).choice(whole.n_obs, 1_500, replace=False)
    adata = whole[chosen].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, gene_likelihood="nb", n_hidden=64)
    model.train(
        max_epochs=20,
        batch_size=64,
        accelerator="cpu",
        seed=0,
        plan_kwargs={"lr": 4e-3},
        enable_progress_bar=False,
    )
    return model


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """The same random numbers for every test."""
    torch.manual_seed(0)


def by_type(model: SCVI, frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the cells of each type of which there are many."""
    types = model.adata.obs["cell_type"]
    means = frame.groupby(types, observed=True).mean()
    return means[types.value_counts()[means.index] > 50]


def test_markers_are_highest_in_their_cells(model: SCVI) -> None:
    expression = model.get_normalized_expression(
        gene_list=list(MARKERS.values()), n_samples=5, library_size=1e4
    )
    means = by_type(model, expression)
    assert {gene: means[gene].idxmax() for gene in means} == {v: k for k, v in MARKERS.items()}
    for cells, gene in MARKERS.items():
        assert means[gene][cells] > 2 * means[gene].median(), gene


def test_expression_is_close_to_the_observed_shares(model: SCVI) -> None:
    counts = model.adata.X.toarray()
    shares = counts / counts.sum(axis=1, keepdims=True)
    expression = model.get_normalized_expression(n_samples=5)
    own = by_type(model, expression)
    observed = by_type(model, pd.DataFrame(shares, expression.index, expression.columns))
    for cells in own.index:
        logs = np.log(own.loc[cells] + 1e-5), np.log(observed.loc[cells] + 1e-5)
        assert np.corrcoef(*logs)[0, 1] > 0.93, cells


def test_donors_are_closer_as_if_all_were_one(model: SCVI) -> None:
    chosen = (model.adata.obs["cell_type"] == "CD4 T cells").to_numpy()
    donors = model.adata.obs["batch"][chosen]
    large = donors.value_counts().index[:4]

    def spread(**kwargs: object) -> float:
        frame = model.get_normalized_expression(indices=chosen, n_samples=5, **kwargs)
        means = frame.groupby(donors, observed=True).mean().loc[large]
        return float(np.log(means).var().mean())

    assert spread(transform_batch=list(large)) < spread() / 3


def test_simulated_cells_have_zeros_where_real_ones_do(model: SCVI) -> None:
    drawn = model.posterior_predictive_sample()
    shares = [np.asarray((counts > 0).mean(axis=0)).ravel() for counts in (drawn, model.adata.X)]
    assert np.corrcoef(*shares)[0, 1] > 0.98
    assert drawn.sum() == pytest.approx(model.adata.X.sum(), rel=0.05)


def test_genes_of_the_same_cells_go_together(model: SCVI) -> None:
    matrix = model.get_feature_correlation_matrix(n_samples=3)
    assert matrix.loc["LYZ", "CD14"] > 0.4
    assert matrix.loc["NKG7", "GNLY"] > 0.3
    assert matrix.loc["LYZ", "CD3D"] < -0.4
