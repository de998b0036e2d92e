"""Small cells, and trained models on them that tests only read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats
from torch.distributions import Normal

from cellvae.contracts import CountLatent, GenerativeModule, Loss
from cellvae.model import SCVI

N_CELLS, N_GENES = 60, 10


def synthetic() -> AnnData:
    """Counts of two kinds of cells in three batches."""
    random = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 2
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.array(["b0", "b1", "b2"])[np.arange(N_CELLS) % 3]),
            "label": pd.Categorical(np.array(["x", "y"])[kind]),
            "size": random.uniform(0.5, 2.0, N_CELLS),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    means = random.gamma(2.0, 2.0, (2, N_GENES))
    return AnnData(random.poisson(means[kind]).astype(np.float32), obs=obs, var=var)


@pytest.fixture(scope="session")
def trained() -> Callable[..., SCVI]:
    """Trained model by its options, made once."""

    @cache
    def made(setup: frozenset[tuple[str, Any]], config: frozenset[tuple[str, Any]]) -> SCVI:
        adata = synthetic()
        SCVI.setup_anndata(adata, **dict(setup))
        torch.manual_seed(0)
        model = SCVI(adata, **{"n_hidden": 8, "n_latent": 3, **dict(config)})
        model.train(
            max_epochs=3,
            batch_size=20,
            accelerator="cpu",
            seed=0,
            enable_progress_bar=False,
            plan_kwargs={"lr": 0.02},
        )
        return model

    def model(setup: Mapping[str, Any] | None = None, **config: Any) -> SCVI:
        keys = {"batch_key": "batch"} if setup is None else setup
        return made(frozenset(keys.items()), frozenset(config.items()))

    return model


class Measured(NamedTuple):
    """Numbers of a batch of cells."""

    counts: torch.Tensor


class LinearGaussian(GenerativeModule[Measured]):
    """x = W z + b + noise, whose marginal and posterior are known; the latter can be put wrong."""

    weight = torch.tensor([[1.0, 1.0], [2.0, -1.0], [-1.0, -1.0]])
    bias = torch.tensor([0.5, 0.0, -1.0])
    noise = 0.7

    def __init__(self, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__()
        self.shift, self.widen = shift, widen
        # Columns of the weight are orthogonal, so the posterior has no correlations.
        self.variance = 1 / (1 + (self.weight**2).sum(dim=0) / self.noise**2)

    def encode(self, batch: Measured) -> CountLatent:
        mean = self.variance * ((batch.counts - self.bias) @ self.weight) / self.noise**2
        q = Normal(mean + self.shift, self.variance.sqrt().expand_as(mean) * self.widen)
        return CountLatent(q, q.rsample(), torch.zeros(len(mean), 1))

    def decode(self, latent: CountLatent, batch: Measured) -> dict[str, Any]:
        return {"rna": Normal(latent.sample @ self.weight.T + self.bias, self.noise)}

    def loss(self, batch: Measured, kl_weight: torch.Tensor) -> Loss:
        raise NotImplementedError

    def log_marginal(self, x: torch.Tensor) -> np.ndarray:
        """Logarithm of p(x) in closed form, by scipy."""
        w = self.weight.double().numpy()
        covariance = w @ w.T + self.noise**2 * np.eye(len(w))
        normal = stats.multivariate_normal(self.bias.double().numpy(), covariance)
        return normal.logpdf(x.double().numpy())


class LinearModel:
    """Trained model of the toy."""

    device = torch.device("cpu")

    def __init__(self, values: torch.Tensor, **wrong: float) -> None:
        self.values = values
        self.module = LinearGaussian(**wrong)

    def rows_for(self, adata: Any) -> LinearModel:
        return self

    def rows_with_counts(self, adata: Any) -> LinearModel:
        return self

    def cell_indices(self, adata: Any, indices: Any) -> torch.Tensor:
        return torch.arange(len(self.values)) if indices is None else torch.as_tensor(indices)

    def take(self, cells: torch.Tensor) -> Measured:
        return Measured(self.values[cells])


@pytest.fixture
def linear() -> Callable[..., LinearModel]:
    """Linear Gaussian model of 40 cells, by how wrong its posterior is."""
    noise = torch.Generator().manual_seed(0)
    values = torch.randn(40, 3, generator=noise) * 2

    def model(**wrong: float) -> LinearModel:
        return LinearModel(values, **wrong)

    return model
