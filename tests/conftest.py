"""Fixtures of all tests: real cells, small cells, and small models."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Where numba (of UMAP) shares its threads with torch, it would give torch more than the tests of a
# worker are to have, and two workers of two threads each on two cores are far slower than one.
os.environ.setdefault("NUMBA_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
# A pytest plugin of another package may have loaded numba before this file was read.
if "numba" in sys.modules:
    sys.modules["numba"].config.reload_config()

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from cellvae.model import SCVI
from cellvae.settings import settings

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Where tests that train are left out, one that trains without the marker `trains` fails."""
    if "not trains" not in config.option.markexpr:
        return
    import lightning.pytorch as pl

    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("This test trains a model. Mark it: @pytest.mark.trains")

    pl.Trainer.fit = fit  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Keep what lives for the whole session out of the way of garbage collection and Lightning.

    A full collection of everything that thousands of tests and their imports made takes a second;
    each of Lightning's trainers reads the metadata of all installed packages.
    """
    from lightning.fabric.utilities import registry

    registry.entry_points = functools.cache(registry.entry_points)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cells beside a developer's checkout; a user's checkout does not have it."""
    folder = ROOT / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real cells is not beside this checkout")
    return folder.resolve()


N_CELLS, N_GENES = 70, 12


def synthetic(n_cells: int = N_CELLS, seed: int = 0) -> AnnData:
    random = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.array(["b0", "b1", "b2"])[np.arange(n_cells) % 3]),
            "label": np.array(["x", "y"])[np.arange(n_cells) % 2],
            "donor": random.integers(1, 4, n_cells),
            "age": random.normal(size=n_cells),
            "size": random.uniform(0.5, 2.0, n_cells),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    obs["label"] = obs["label"].astype(object)
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    counts = random.poisson(random.gamma(2.0, 2.0, N_GENES), (n_cells, N_GENES))
    return AnnData(counts.astype(np.float32), obs=obs, var=var)


@pytest.fixture
def cells() -> Callable[..., AnnData]:
    """Cells by their number and a seed."""
    return synthetic


@pytest.fixture
def adata() -> AnnData:
    return synthetic()


@pytest.fixture(scope="session")
def make() -> Callable[..., SCVI]:
    """Set up and make a small model with the same weights every time."""

    def made(adata: AnnData, setup: dict[str, Any] | None = None, **config: Any) -> SCVI:
        SCVI.setup_anndata(adata, **({"batch_key": "batch"} if setup is None else setup))
        torch.manual_seed(0)
        return SCVI(adata, **{"n_hidden": 8, "n_latent": 3, **config})

    return made


@pytest.fixture(scope="session")
def train() -> Callable[..., SCVI]:
    """Train for an epoch without a word."""

    def run(model: SCVI, **kwargs: Any) -> SCVI:
        given = {"max_epochs": 1, "batch_size": 32, "accelerator": "cpu", "seed": 0} | kwargs
        model.train(enable_progress_bar=False, **given)
        return model

    return run


@pytest.fixture(scope="session")
def trained(make: Callable[..., SCVI], train: Callable[..., SCVI]) -> SCVI:
    """Trained model that tests only read."""
    return train(make(synthetic()), max_epochs=2)


@pytest.fixture(scope="session")
def trained_with_everything(make: Callable[..., SCVI], train: Callable[..., SCVI]) -> SCVI:
    """Trained model of every kind of column, that tests only read."""
    setup = {
        "batch_key": "batch",
        "labels_key": "label",
        "size_factor_key": "size",
        "categorical_covariate_keys": ["donor", "label"],
        "continuous_covariate_keys": ["age"],
    }
    return train(make(synthetic(), setup, encode_covariates=True, dispersion="gene-label"))


@pytest.fixture
def settings_put_back() -> Iterator[None]:
    """Settings and global random numbers as they were, after the test."""
    values, state, numpy_state = dict(settings.values), torch.get_rng_state(), np.random.get_state()
    yield
    settings.values.update(values)
    torch.set_rng_state(state)
    np.random.set_state(numpy_state)
