"""Aggregated posteriors and abundances of the same weights are those of scvi-tools 1.5.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from numpy.lib.npyio import NpzFile
from scipy import stats

from cellvae.model import SCVI

DOF = {"normal": None, "student": 3.0}


@pytest.fixture(scope="module")
def pinned() -> NpzFile:
    return np.load(Path(__file__).with_name("abundance.npz"))


def model_of(pinned: NpzFile, latent: str) -> SCVI:
    """Model with the weights that scvi-tools wrote."""
    adata = AnnData(pinned["counts"])
    adata.obs["donor"] = pinned["donors"]
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=8, n_latent=3, latent_distribution=latent)
    names = model.module.state_dict()
    weights = {name: torch.from_numpy(pinned[f"{latent}/weights/{name}"]) for name in names}
    model.module.load_state_dict(weights)
    model.is_trained = True
    return model


@pytest.mark.parametrize("components", DOF)
@pytest.mark.parametrize("latent", ["normal", "ln"])
def test_aggregated_posteriors_are_those_of_scvi_tools(
    pinned: NpzFile, latent: str, components: str
) -> None:
    found = model_of(pinned, latent).get_aggregated_posterior(
        indices=np.arange(0, 60, 4), dof=DOF[components]
    )
    density = found.log_prob(torch.from_numpy(pinned[f"{latent}/points"]))
    np.testing.assert_allclose(density, pinned[f"{latent}/{components}/density"], rtol=2e-5)


@pytest.mark.parametrize("components", DOF)
def test_abundances_are_those_of_scvi_tools(pinned: NpzFile, components: str) -> None:
    model = model_of(pinned, "normal")
    adata = model.adata
    table = model.differential_abundance(adata, sample_key="donor", dof=DOF[components])
    assert [*table.columns] == ["x", "y", "z"]
    np.testing.assert_allclose(table, pinned[f"normal/{components}/whole"], rtol=2e-5)
    part = adata[[9, 4, 5, 0]].copy()
    table = model.differential_abundance(adata, part, sample_key="donor", dof=DOF[components])
    np.testing.assert_allclose(table, pinned[f"normal/{components}/part"], rtol=2e-5)


def test_the_scale_is_a_standard_deviation(pinned: NpzFile) -> None:
    """A mixture of one cell is its posterior; with the variance as scale it would be another."""
    model = model_of(pinned, "normal")
    mean, variance = model.get_latent_representation(indices=[7], return_dist=True)
    points = pinned["normal/points"]
    density = model.get_aggregated_posterior(indices=[7], dof=None).log_prob(
        torch.from_numpy(points)
    )
    closed = stats.norm.logpdf(points, mean, np.sqrt(variance)).sum(axis=1)
    np.testing.assert_allclose(density, closed, rtol=1e-4)
    assert (np.abs(stats.norm.logpdf(points, mean, variance).sum(axis=1) - closed) > 0.1).all()
