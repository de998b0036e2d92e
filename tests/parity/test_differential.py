"""Differential expression, with the weights and cells of scvi-tools, against its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats

from cellvae.model import SCVI

N_DRAWS = 5_000
ASKED: dict[str, dict[str, Any]] = {
    "change": {"groupby": "kind"},
    "two": {"groupby": "kind", "test_mode": "two", "pseudocounts": 1e-4},
    "corrected": {"groupby": "kind", "batch_correction": True},
    "vanilla": {"groupby": "kind", "mode": "vanilla", "group1": "x", "group2": "y"},
}


@pytest.fixture(scope="module")
def theirs() -> dict[str, np.ndarray]:
    """What `write_differential.py` wrote."""
    with np.load(Path(__file__).parent / "differential.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(theirs: dict[str, np.ndarray]) -> SCVI:
    """Our model with their weights; one that is missing or left over raises."""
    obs = pd.DataFrame({key: theirs[key] for key in ("batch", "kind")})
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    adata = AnnData(theirs["counts"], obs=obs)
    adata.var_names = [f"gene{i}" for i in range(adata.n_vars)]
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=16, n_latent=4)
    unused = ("px_r_decoder", "l_encoder", "library_log")
    own = model.module.state_dict()
    weights = {
        name.removeprefix("weight "): torch.from_numpy(values)
        for name, values in theirs.items()
        if name.startswith("weight ")
        and (name.removeprefix("weight ") in own or not any(word in name for word in unused))
    }
    model.module.load_state_dict(weights)
    model.is_trained = True
    return model


@pytest.mark.parametrize("name", ASKED)
def test_tables(name: str, model: SCVI, theirs: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    table = model.differential_expression(n_samples_overall=N_DRAWS, **ASKED[name])
    for group, part in table.groupby("group1"):
        ours = part.loc[model.adata.var_names]

        def other(column: str, group: object = group) -> np.ndarray:
            return theirs[f"{name} {group} {column}"]

        for scale in ("scale1", "scale2"):
            np.testing.assert_allclose(ours[scale], other(scale), rtol=0.06)
        chance = "proba_m1" if name == "vanilla" else "proba_de"
        expected = other(chance)
        # Theirs and ours are drawn, theirs twice with replacement.
        error = np.sqrt(2.5 * expected * (1 - expected) / N_DRAWS) + 1 / N_DRAWS
        assert (np.abs(ours[chance] - expected) < 4.5 * error).all()
        if name != "vanilla":
            ranks = stats.spearmanr(ours["lfc_mean"], other("lfc_mean")).statistic
            assert ranks > 0.99
            np.testing.assert_allclose(ours["pseudocounts"], other("pseudocounts"), rtol=0.25)
        if name == "change":
            for stat in ("raw_mean", "non_zeros_proportion", "raw_normalized_mean"):
                for side in (f"{stat}1", f"{stat}2"):
                    np.testing.assert_allclose(ours[side], other(side), rtol=1e-5, err_msg=side)
