"""Solo against scvi-tools' SOLO: logits, twenty steps of training, doublets, a saved model."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch import Tensor

import cellvae
from cellvae.model.solo import SOLO, SOLOBatch, SOLOConfig, SOLOModule
from cellvae.train.loop.optimizers import make_optimizer
from cellvae.train.options.optimizer_options import OptimizerOptions

SAVED = Path(__file__).parents[1] / "interop" / "data" / "solo"


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    with np.load(Path(__file__).with_name("solo.npz")) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def weights(theirs: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)}


def module_of(theirs: dict[str, Tensor]) -> SOLOModule:
    config = SOLOConfig(n_hidden=8, n_layers=2, dropout_rate=0.0)
    module = SOLOModule(theirs["features"].shape[1], config)
    module.load_state_dict(weights(theirs, "weight "))
    return module.eval()


def features(theirs: dict[str, Tensor]) -> AnnData:
    labels = np.where(theirs["labels"].numpy() == 1, "singlet", "doublet")
    obs = pd.DataFrame({"_solo_doub_sim": labels}, index=[str(i) for i in range(len(labels))])
    return AnnData(theirs["features"].numpy(), obs=obs)


def test_logits_are_those_of_the_same_weights(theirs: dict[str, Tensor]) -> None:
    logits = module_of(theirs).logits(theirs["features"])
    torch.testing.assert_close(logits, theirs["logits"], rtol=1e-5, atol=1e-6)


def test_twenty_steps_end_at_the_same_weights(theirs: dict[str, Tensor]) -> None:
    module = module_of(theirs).train()
    optimizer = make_optimizer(module, OptimizerOptions())
    losses = []
    for cells in theirs["batches"]:
        batch = SOLOBatch(theirs["features"][cells], theirs["labels"][cells, None])
        loss = module.loss(batch, torch.tensor(1.0)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    torch.testing.assert_close(torch.stack(losses), theirs["losses"], rtol=1e-3, atol=1e-5)
    for name, expected in weights(theirs, "trained ").items():
        if name == "logits":
            continue
        found = module.state_dict()[name]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    logits = module.eval().logits(theirs["features"])
    torch.testing.assert_close(logits, theirs["trained logits"], rtol=1e-3, atol=1e-4)


def test_doublets_of_one_batch_are_those_of_scvi_tools(theirs: dict[str, Tensor]) -> None:
    cells = AnnData(theirs["counts"].numpy())
    cellvae.model.SCVI.setup_anndata(cells)
    made = SOLO.create_doublets(cells, 2)
    expected = theirs["doublets"].numpy()
    assert made.shape == expected.shape == (40, 10)
    twice = (expected[:, None] == 2 * theirs["counts"].numpy()).all(axis=2).any(axis=1)
    assert twice.sum() <= 3  # two times one cell, which scvi-tools allows
    np.testing.assert_array_equal(np.asarray(made.X)[~twice], expected[~twice])
    assert not (np.asarray(made.X)[twice] == expected[twice]).all(axis=1).any()


def test_a_saved_model_of_scvi_tools_predicts_the_same(theirs: dict[str, Tensor]) -> None:
    adata = features(theirs)
    for model in (SOLO.load(SAVED, adata), cellvae.load(SAVED, adata)):
        found: Any = model.predict(include_simulated_doublets=True)
        assert isinstance(model, SOLO)
        assert [*found] == ["doublet", "singlet"]
        np.testing.assert_allclose(found.to_numpy(), theirs["predicted"], rtol=1e-4, atol=1e-6)


def test_a_model_that_is_written_for_scvi_tools_is_read_again(
    theirs: dict[str, Tensor], tmp_path: Path
) -> None:
    model = SOLO.load(SAVED, features(theirs))
    model.save(tmp_path, format="scvi-tools")
    again = SOLO.load(tmp_path, features(theirs))
    pd.testing.assert_frame_equal(again.predict(), model.predict())
    assert again.registry["setup_args"] == {"layer": None, "labels_key": "_solo_doub_sim"}


PEER = """
import sys, anndata, numpy as np, scvi
folder = sys.argv[1]
adata = anndata.read_h5ad(f"{folder}/features.h5ad")
model = scvi.external.SOLO.load(f"{folder}/ours", adata, accelerator="cpu")
np.save(f"{folder}/theirs.npy", model.predict(include_simulated_doublets=True).to_numpy())
model.train(max_epochs=1, accelerator="cpu")
np.save(f"{folder}/trained.npy", model.predict(include_simulated_doublets=True).to_numpy())
model.save(f"{folder}/theirs")
"""


def test_scvi_tools_reads_what_is_written_and_the_other_way_round(
    theirs: dict[str, Tensor], tmp_path: Path
) -> None:
    peer = os.environ.get("CELLVAE_PEER_PYTHON")
    if peer is None:
        pytest.skip("CELLVAE_PEER_PYTHON does not name a Python with scvi-tools")
    adata = features(theirs)
    SOLO.setup_anndata(adata, labels_key="_solo_doub_sim")
    model = SOLO(adata, n_hidden=7, n_layers=2, dropout_rate=0.2)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "ours", format="scvi-tools")
    AnnData(adata.X, obs=adata.obs[["_solo_doub_sim"]]).write_h5ad(tmp_path / "features.h5ad")
    command = [peer, "-W", "ignore", "-c", PEER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ours: Any = model.predict(include_simulated_doublets=True)
    np.testing.assert_allclose(np.load(tmp_path / "theirs.npy"), ours, atol=1e-5)
    again: Any = SOLO.load(tmp_path / "theirs", features(theirs))
    found = again.predict(include_simulated_doublets=True)
    np.testing.assert_allclose(found, np.load(tmp_path / "trained.npy"), atol=1e-5)
    assert again.config.n_hidden == 7
