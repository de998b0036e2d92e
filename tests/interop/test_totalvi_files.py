"""TOTALVI models of scvi-tools: the same latents here, and files that scvi-tools reads again."""

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
from cellvae.data.files.h5mu import write_cells
from cellvae.model import TOTALVI

pytestmark = pytest.mark.trains

DATA = Path(__file__).parent / "data" / "totalvi"
KINDS = ("missing", "panels", "covariates")
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
import anndata, numpy as np
from scvi.model import TOTALVI
folder, cells, latent = sys.argv[1:]
if cells.endswith(".h5mu"):
    import mudata
    data = mudata.read_h5mu(cells)
else:
    data = anndata.read_h5ad(cells)
model = TOTALVI.load(folder, adata=data, accelerator="cpu")
print(json.dumps(float(np.abs(model.get_latent_representation() - np.load(latent)).max())))
"""


@pytest.fixture
def cells() -> AnnData:
    return anndata.read_h5ad(DATA / "cells.h5ad")


@pytest.fixture(scope="module")
def latents() -> dict[str, np.ndarray]:
    with np.load(DATA / "latents.npz") as arrays:
        return dict(arrays)


def as_mudata(cells: AnnData) -> Any:
    from mudata import MuData

    table = cells.obsm["proteins"]
    protein = AnnData(table.to_numpy(np.float32))
    protein.obs_names, protein.var_names = cells.obs_names, [*table.columns]
    rna = AnnData(cells.X.copy(), obs=cells.obs.copy(), var=cells.var.copy())
    return MuData({"rna": rna, "protein": protein})


@pytest.mark.parametrize("name", KINDS)
def test_latents_are_those_of_scvi_tools(name: str, cells: AnnData, latents: Any) -> None:
    model: Any = cellvae.load(DATA / name, cells)
    np.testing.assert_allclose(model.get_latent_representation(), latents[name], atol=1e-5)
    assert model.config.n_hidden == 6 and model.is_trained
    assert model.module.measured_by_panel.sum(dim=1).tolist() == [11, 10]
    names = model.registration.axes["proteins"].features
    assert names[2] == "CD2" and model.adata_manager.summary_stats.n_proteins == 11
    probability = model.get_protein_foreground_probability()
    assert list(probability.columns) == list(names)


def test_the_three_files_of_old_versions_are_read(cells: AnnData, latents: Any) -> None:
    model = TOTALVI.load(DATA / "legacy", cells)
    # Before 1.2 the function was the exponential; the encoder does not depend on it.
    assert model.config.extra_decoder_kwargs == {"activation_function_bg": "exp"}
    assert not model.module.log_per_batch_efficiency.any()
    np.testing.assert_allclose(model.get_latent_representation(), latents["missing"], atol=1e-5)
    assert model.module.measured_by_panel.sum(dim=1).tolist() == [11, 10]


def test_a_model_of_a_mudata_is_read(cells: AnnData, latents: Any) -> None:
    model = TOTALVI.load(DATA / "mudata", as_mudata(cells))
    np.testing.assert_allclose(model.get_latent_representation(), latents["mudata"], atol=1e-5)
    assert model.registration.keys.modalities["protein_layer"] == "protein"


@pytest.mark.parametrize("name", [*KINDS, "mudata"])
def test_what_is_written_is_read_again(
    name: str, cells: AnnData, latents: Any, tmp_path: Path
) -> None:
    data = as_mudata(cells) if name == "mudata" else cells
    model = TOTALVI.load(DATA / name, data)
    model.save(tmp_path / "out", format="scvi-tools")
    again = TOTALVI.load(tmp_path / "out", data)
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )
    assert again.registration == model.registration and again.config == model.config
    python = os.environ.get("CELLVAE_PEER_PYTHON")
    if not python:
        return
    path = tmp_path / ("cells.h5mu" if name == "mudata" else "cells.h5ad")
    write_cells(data, path, {})
    np.save(tmp_path / "latent.npy", latents[name])
    command = [python, "-c", READ, tmp_path / "out", path, tmp_path / "latent.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) < 1e-5
