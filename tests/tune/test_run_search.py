"""A search on Ray, where it is installed: trials, table, best model, and going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import cellvae
from cellvae import tune
from cellvae.model import SCVI

pytest.importorskip("ray.tune", reason="the extra tune is not installed")
pytestmark = [
    pytest.mark.trains,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("settings_put_back"),
]


def test_a_search_and_its_resumption(adata: AnnData, tmp_path: Path) -> None:
    SCVI.setup_anndata(adata, batch_key="batch")
    space: dict[str, Any] = {
        "model_params": {"n_hidden": 8, "n_latent": tune.grid_search([2, 3])},
        "train_params": {
            "max_epochs": 2,
            "batch_size": 32,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "plan_kwargs": {"lr": tune.loguniform(1e-4, 1e-2)},
        },
    }
    found = tune.run(
        SCVI, adata, space, ["elbo_validation", "eval/ilisi"], num_samples=1, scheduler=None,
        seed=3, storage_path=tmp_path, name="small", max_concurrent_trials=1,
    )  # fmt: skip
    assert sorted(found.table["n_latent"]) == [2, 3]
    assert set(found.table["status"]) == {"completed"} and len(found.history) == 4
    assert found.best_score == found.history["elbo_validation"].min()
    assert found.table["eval/ilisi"].notna().any()
    model = found.best_model()
    assert model.config.n_latent == found.best_config["model_params"]["n_latent"]
    assert np.isfinite(model.get_latent_representation()).all()
    assert len(found.plot().lines) == 4
    again = cellvae.tune.run(
        SCVI, adata, space, ["elbo_validation", "eval/ilisi"], num_samples=1, scheduler=None,
        seed=3, storage_path=tmp_path, name="small", max_concurrent_trials=1, resume="auto",
    )  # fmt: skip
    assert again.table["elbo_validation"].equals(found.table["elbo_validation"])
