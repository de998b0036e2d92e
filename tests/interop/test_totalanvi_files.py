"""TOTALANVI models of scvi-tools: the same answers here, and files that scvi-tools reads again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from anndata import AnnData

import cellvae
from cellvae.errors import InvalidOptionError
from cellvae.model import TOTALANVI, TOTALVI

pytestmark = pytest.mark.trains

DATA = Path(__file__).parent / "data"
CASES = ("missing", "covariates")
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
import anndata, numpy as np
from scvi.external import TOTALANVI
folder, cells, answers = sys.argv[1:]
model = TOTALANVI.load(folder, adata=anndata.read_h5ad(cells), accelerator="cpu")
expected = np.load(answers)
gaps = [
    np.abs(model.get_latent_representation() - expected["latent"]).max(),
    np.abs(model.predict(soft=True).to_numpy() - expected["labels"]).max(),
]
model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
print(json.dumps([float(gap) for gap in gaps]))
"""


@pytest.fixture
def cells() -> AnnData:
    return anndata.read_h5ad(DATA / "totalvi" / "cells.h5ad")


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(DATA / "totalanvi" / "answers.npz") as arrays:
        return dict(arrays)


def compare_with_peer(folder: Path, latent: np.ndarray, labels: np.ndarray) -> None:
    """Read the model with scvi-tools, where the environment names its Python."""
    python = os.environ.get("CELLVAE_PEER_PYTHON")
    if not python:
        return
    np.savez(folder.parent / "answers.npz", latent=latent, labels=labels)
    files = [folder, DATA / "totalvi" / "cells.h5ad", folder.parent / "answers.npz"]
    done = subprocess.run([python, "-c", READ, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert max(json.loads(done.stdout.splitlines()[-1])) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_scvi_tools(name: str, cells: AnnData, answers: Any) -> None:
    model: Any = cellvae.load(DATA / "totalanvi" / name, cells)
    latent = model.get_latent_representation()
    np.testing.assert_allclose(latent, answers[f"{name} latent"], atol=1e-5)
    probabilities = model.predict(soft=True)
    np.testing.assert_allclose(probabilities, answers[f"{name} labels"], atol=1e-5)
    assert [*probabilities.columns] == [*model.labels]
    assert {*model.labels} == {"label_1", "label_2"}
    assert model.unlabeled_category_ == "label_0" and model.is_trained
    assert model.config.linear_classifier == (name == "covariates")


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_again(
    name: str, cells: AnnData, answers: Any, tmp_path: Path
) -> None:
    model = TOTALANVI.load(DATA / "totalanvi" / name, cells)
    model.save(tmp_path / "out", format="scvi-tools")
    again: Any = TOTALANVI.load(tmp_path / "out", cells)
    latent = again.get_latent_representation()
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    assert again.registration == model.registration and again.config == model.config
    compare_with_peer(tmp_path / "out", answers[f"{name} latent"], answers[f"{name} labels"])


def test_a_model_begun_here_is_read_there(cells: AnnData, tmp_path: Path) -> None:
    first = TOTALVI.load(DATA / "totalvi" / "missing", cells)
    model: Any = TOTALANVI.from_totalvi_model(first, "label_0", labels_key="labels")
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "out", format="scvi-tools")
    again: Any = TOTALANVI.load(tmp_path / "out", cells)
    latent, labels = model.get_latent_representation(), model.predict(soft=True).to_numpy()
    np.testing.assert_array_equal(again.get_latent_representation(), latent)
    np.testing.assert_array_equal(again.predict(soft=True), labels)
    compare_with_peer(tmp_path / "out", latent, labels)


def test_a_mudata_with_labels_is_not_written(cells: AnnData, tmp_path: Path) -> None:
    from mudata import MuData

    table = cells.obsm["proteins"]
    protein = AnnData(table.to_numpy(np.float32), obs=cells.obs[[]])
    protein.var_names = [*table.columns]
    mdata = MuData({"rna": AnnData(cells.X, obs=cells.obs, var=cells.var), "protein": protein})
    TOTALANVI.setup_mudata(
        mdata,
        labels_key="labels",
        unlabeled_category="label_0",
        modalities={"rna_layer": "rna", "protein_layer": "protein", "labels_key": "rna"},
    )
    model = TOTALANVI(mdata, n_latent=2, n_hidden=4)
    model.is_trained = True
    with pytest.raises(InvalidOptionError, match=r"labels of a MuData"):
        model.save(tmp_path / "out", format="scvi-tools")
