"""Answers about expression, with the weights and cells of scvi-tools, against its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.model import SCVI

N_SAMPLES = 2_000


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """What `write_expression.py` wrote."""
    with np.load(Path(__file__).parent / "expression.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(theirs: dict[str, np.ndarray]) -> SCVI:
    """Our model with their weights; one that is missing or left over raises."""
    adata = AnnData(
        theirs["counts"],
        obs=pd.DataFrame({"batch": theirs["batch"]}).set_index(
            pd.Index([f"cell{i}" for i in range(len(theirs["counts"]))])
        ),
    )
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=8, n_latent=3, use_observed_lib_size=False)
    weights = {
        name.removeprefix("weight "): torch.from_numpy(values)
        for name, values in theirs.items()
        if name.startswith("weight ") and "px_r_decoder" not in name
    }
    model.module.load_state_dict(weights)
    model.is_trained = True
    return model


def gap(ours: np.ndarray, others: np.ndarray, spread: np.ndarray) -> float:
    """Largest difference of two means of draws with this spread, in standard errors."""
    return float((np.abs(ours - others) / (spread * np.sqrt(2 / N_SAMPLES) + 1e-7)).max())


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("share", {}),
        ("latent", {"library_size": "latent"}),
        ("batches", {"transform_batch": ["b0", "b2"], "library_size": 1e4}),
    ],
)
def test_expression(
    name: str, kwargs: dict[str, object], model: SCVI, theirs: dict[str, np.ndarray]
) -> None:
    torch.manual_seed(0)
    draws = model.get_normalized_expression(n_samples=N_SAMPLES, return_mean=False, **kwargs)
    assert gap(draws.mean(axis=0), theirs[name], draws.std(axis=0)) < 5


def test_expression_of_the_population(model: SCVI, theirs: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    draws = model.get_normalized_expression(n_samples_overall=20_000, return_numpy=True)
    errors = draws.std(axis=0) * np.sqrt(2 / 20_000)
    # Theirs are drawn twice: cells' draws, and from these with replacement.
    assert (np.abs(draws.mean(axis=0) - theirs["overall"]) < 5 * np.sqrt(1.5) * errors).all()


def test_parameters(model: SCVI, theirs: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    parameters = model.get_likelihood_parameters(n_samples=N_SAMPLES)
    for name in ("mean", "dropout"):
        draws = parameters[name]
        assert gap(draws.mean(axis=0), theirs[f"parameter_{name}"], draws.std(axis=0)) < 5, name
    np.testing.assert_allclose(
        parameters["dispersions"].mean(axis=0), theirs["parameter_dispersions"], rtol=1e-4
    )


def test_sizes(model: SCVI, theirs: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(model.get_latent_library_size(), theirs["library"], rtol=1e-4)


def test_simulated_counts(model: SCVI, theirs: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    samples = model.posterior_predictive_sample(n_samples=N_SAMPLES)
    draws = np.stack([counts.toarray() for counts in samples])
    assert gap(draws.mean(axis=0), theirs["predictive_mean"], draws.std(axis=0)) < 6
    zero = (draws == 0).mean(axis=0)
    spread = np.sqrt(zero * (1 - zero)) + 1 / np.sqrt(N_SAMPLES)
    assert gap(zero, theirs["predictive_zero"], spread) < 5


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_correlations(kind: str, model: SCVI, theirs: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    matrix = model.get_feature_correlation_matrix(n_samples=300, correlation_type=kind)
    np.testing.assert_allclose(matrix, theirs[kind], atol=0.05)
