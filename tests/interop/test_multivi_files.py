"""MULTIVI models of scvi-tools: the same latents here, and files that scvi-tools reads again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import cellvae
from cellvae.data.files.h5mu import write_cells
from cellvae.errors import DataMismatchError, FileFormatError, InvalidOptionError
from cellvae.model import MULTIVI

pytestmark = pytest.mark.trains

DATA = Path(__file__).parent / "data" / "multivi"
MODALITIES = {
    "proteins": ("rna", "atac", "protein"),
    "cell": ("rna", "atac"),
    "regions": ("atac",),
    "genes": ("rna", "protein"),
}
N_GENES, N_REGIONS = 12, 16
# Cells without any modality have the prior here, and the mean of all encoders there.
MEASURED = {"regions": slice(10, None)}
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mudata, numpy as np
from scvi.model import MULTIVI
folder, cells, latent = sys.argv[1:]
mdata = mudata.read_h5mu(cells)
model = MULTIVI.load(folder, adata=mdata, accelerator="cpu")
found = model.get_latent_representation()
rates = [model.module.n_input_genes, model.module.n_input_regions, model.module.n_input_proteins]
model.train(
    max_epochs=1, adversarial_mixing=False, accelerator="cpu", enable_progress_bar=False
)
print(json.dumps([float(np.nanmax(np.abs(found - np.load(latent)))), rates]))
"""


def make_cells(modalities: Any) -> Any:
    """Cells with some of the modalities of the file, in this order."""
    whole = mudata.read_h5mu(DATA / "cells.h5mu")
    mdata = mudata.MuData({name: whole[name].copy() for name in modalities})
    columns = ["size", "depth"]
    mdata.obs[columns] = whole.obs.loc[mdata.obs_names, columns]
    return mdata


def as_anndata(mdata: Any) -> AnnData:
    """Genes and regions of a MuData side by side, the regions first."""
    cells = anndata.concat([mdata["atac"], mdata["rna"]], axis=1)
    cells.obs = mdata["rna"].obs[["batch"]].copy()
    cells.var["feature_types"] = ["Peaks"] * N_REGIONS + ["Gene Expression"] * N_GENES
    cells.obsm["protein"] = mdata["protein"].to_df()
    return cells


@pytest.fixture(scope="module")
def latents() -> dict[str, np.ndarray]:
    with np.load(DATA / "latents.npz") as arrays:
        return dict(arrays)


def compare_with_peer(folder: Path, mdata: Any, latent: np.ndarray, sizes: list[int]) -> None:
    """Read the model with scvi-tools, where the environment names its Python."""
    python = os.environ.get("CELLVAE_PEER_PYTHON")
    if not python:
        return
    write_cells(mdata, folder.parent / "cells.h5mu", {})
    np.save(folder.parent / "latent.npy", latent)
    files = [folder, folder.parent / "cells.h5mu", folder.parent / "latent.npy"]
    done = subprocess.run([python, "-c", READ, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    gap, found = json.loads(done.stdout.splitlines()[-1])
    assert gap < 1e-5 and found == sizes


@pytest.mark.parametrize("name", MODALITIES)
def test_latents_are_those_of_scvi_tools(name: str, latents: Any) -> None:
    model: Any = cellvae.load(DATA / name, make_cells(MODALITIES[name]))
    measured = MEASURED.get(name, slice(None))
    latent = model.get_latent_representation()
    np.testing.assert_allclose(latent[measured], latents[name][measured], atol=1e-5)
    if name == "regions":
        assert not latent[:10].any()
    assert model.is_trained and len(model.train_indices) == 48
    assert model.n_genes == (0 if name == "regions" else N_GENES)
    assert model.n_regions == (0 if name == "genes" else N_REGIONS)
    assert model.n_proteins == (4 if "protein" in MODALITIES[name] else 0)
    if name == "proteins":
        assert model.module.n_hidden == 4  # the square root of the number of regions
        assert model.adata_manager.summary_stats.n_atac == N_REGIONS
    if name == "cell":
        weights = model.module.mod_weights.detach()
        assert weights.shape == (60, 3) and weights[:, :2].std(dim=0).min() > 0
        assert model.registration.keys.size_factor_key == ("size", "depth")


def test_a_model_of_an_anndata_is_read(latents: Any) -> None:
    cells = as_anndata(make_cells(MODALITIES["proteins"]))
    model = MULTIVI.load(DATA / "anndata", cells)
    np.testing.assert_allclose(model.get_latent_representation(), latents["anndata"], atol=1e-5)
    assert model.registration.axes["regions"].features[0] == "atac0"
    del cells.var["feature_types"]
    with pytest.raises(cellvae.errors.UnknownKeyError, match="feature_types"):
        MULTIVI.load(DATA / "anndata", cells)


def test_weights_of_versions_before_proteins_are_read(latents: Any, tmp_path: Path) -> None:
    saved = torch.load(DATA / "anndata" / "model.pt", weights_only=False)
    attributes = saved["attr_dict"]
    options = attributes["init_params_"]["non_kwargs"]
    for name in ("modality_weights", "modality_penalty", "dispersion", "protein_dispersion"):
        del options[name]
    del attributes["registry_"]["field_registries"]["proteins"]
    attributes["registry_"]["setup_args"]["protein_expression_obsm_key"] = None
    attributes["registry_"]["scvi_version"] = "0.15.5"
    weights = saved["model_state_dict"]
    for name in [name for name in weights if "pro" in name or name in ("py_r", "mod_weights")]:
        del weights[name]
    (tmp_path / "old").mkdir()
    torch.save(saved, tmp_path / "old" / "model.pt")
    cells = as_anndata(make_cells(MODALITIES["proteins"]))
    model = MULTIVI.load(tmp_path / "old", cells)
    new = MULTIVI.load(DATA / "anndata", cells)
    for modality in ("expression", "accessibility"):
        np.testing.assert_array_equal(
            model.get_latent_representation(modality=modality),
            new.get_latent_representation(modality=modality),
        )
    joint = model.get_latent_representation()[10:50]
    parts = [model.get_latent_representation(modality=m) for m in ("expression", "accessibility")]
    np.testing.assert_allclose(joint, (parts[0] + parts[1])[10:50] / 2, atol=1e-6)


def test_the_width_of_old_versions_had_no_limit() -> None:
    options = {"n_genes": 3, "n_regions": 40_000, "n_hidden": None}
    assert MULTIVI.import_scvi_options(options, "1.1.6")["n_hidden"] == 200
    assert MULTIVI.import_scvi_options(options, "1.2.2")["n_hidden"] is None
    given = {**options, "n_hidden": 7}
    assert MULTIVI.import_scvi_options(given, "0.20.3")["n_hidden"] == 7


@pytest.mark.parametrize("name", MODALITIES)
def test_what_is_written_is_read_again(name: str, latents: Any, tmp_path: Path) -> None:
    mdata = make_cells(MODALITIES[name])
    model = MULTIVI.load(DATA / name, mdata)
    model.save(tmp_path / "out", format="scvi-tools")
    again = MULTIVI.load(tmp_path / "out", mdata)
    latent = again.get_latent_representation()
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    assert again.registration == model.registration and again.config == model.config
    sizes = [model.n_genes, model.n_regions, model.n_proteins]
    expected = np.full_like(latent, np.nan)
    measured = MEASURED.get(name, slice(None))
    expected[measured] = latents[name][measured]
    compare_with_peer(tmp_path / "out", mdata, expected, sizes)


def test_all_weights_of_scvi_tools_are_written_in_their_shapes(tmp_path: Path) -> None:
    for name, modalities in MODALITIES.items():
        MULTIVI.load(DATA / name, make_cells(modalities)).save(tmp_path / name, format="scvi-tools")
        files = (DATA / name / "model.pt", tmp_path / name / "model.pt")
        theirs, ours = (
            {
                key: (tensor.shape, tensor.dtype)
                for key, tensor in torch.load(path, weights_only=False)["model_state_dict"].items()
                if isinstance(tensor, torch.Tensor)
            }
            for path in files
        )
        assert ours == theirs, name


def test_a_model_of_an_anndata_is_written_as_that_of_a_mudata(tmp_path: Path) -> None:
    mdata = make_cells(MODALITIES["proteins"])
    cells = as_anndata(mdata)
    MULTIVI.setup_anndata(cells, batch_key="batch", protein_expression_obsm_key="protein")
    model = MULTIVI(cells, n_latent=3, n_genes=N_GENES)
    model.train(2, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "out", format="scvi-tools")
    again = MULTIVI.load(tmp_path / "out", mdata)
    latent = model.get_latent_representation()
    np.testing.assert_allclose(again.get_latent_representation(), latent, atol=1e-6)
    assert again.registration.keys.modalities["batch_key"] == "rna"
    compare_with_peer(tmp_path / "out", mdata, latent, [N_GENES, N_REGIONS, 4])
    with pytest.raises(InvalidOptionError, match="MuData"):
        model.save(tmp_path / "cells", format="scvi-tools", save_anndata=True)


def test_models_that_scvi_tools_cannot_make_are_refused(tmp_path: Path) -> None:
    def save(modality: str, argument: str, setup: Any, **config: Any) -> None:
        mdata = make_cells([modality])[:50].copy()
        MULTIVI.setup_mudata(mdata, modalities={argument: modality}, **setup)
        model = MULTIVI(mdata, n_hidden=4, n_latent=2, **config)
        model.is_trained = True
        model.save(tmp_path / "out", format="scvi-tools")

    with pytest.raises(InvalidOptionError, match="proteins alone"):
        save("protein", "protein_layer", {})
    with pytest.raises(InvalidOptionError, match="no labels"):
        save("rna", "rna_layer", {}, dispersion="gene-label")
    with pytest.raises(InvalidOptionError, match="two columns of size factors"):
        save("rna", "rna_layer", {"size_factor_key": "size"})


def test_a_file_with_other_features_is_refused(tmp_path: Path) -> None:
    saved = torch.load(DATA / "regions" / "model.pt", weights_only=False)
    saved["attr_dict"]["init_params_"]["non_kwargs"]["n_regions"] = 15
    (tmp_path / "wrong").mkdir()
    torch.save(saved, tmp_path / "wrong" / "model.pt")
    with pytest.raises(FileFormatError, match="n_regions=16.*got 15"):
        MULTIVI.load(tmp_path / "wrong", make_cells(["atac"]))


def test_weights_of_cells_belong_to_these_cells(latents: Any, tmp_path: Path) -> None:
    mdata = make_cells(MODALITIES["cell"])
    model = MULTIVI.load(DATA / "cell", mdata)
    chosen = np.array([45, 3, 20])
    np.testing.assert_allclose(
        model.get_latent_representation(indices=chosen), latents["cell"][chosen], atol=1e-5
    )
    same = make_cells(MODALITIES["cell"])
    np.testing.assert_array_equal(
        model.get_latent_representation(same), model.get_latent_representation()
    )
    with pytest.raises(DataMismatchError, match="60 cells of the model.*got 10 cells"):
        model.get_latent_representation(mdata[:10].copy())
    with pytest.raises(DataMismatchError, match="of other names"):
        model.get_latent_representation(mdata[np.arange(60)[::-1]].copy())
    with pytest.raises(DataMismatchError, match="indices"):
        MULTIVI.load(DATA / "cell", mdata[:10].copy())
    with pytest.raises(InvalidOptionError, match="modality_weights='cell'"):
        MULTIVI.load_query_data(same, model)
    model.save(tmp_path / "own")
    again = MULTIVI.load(tmp_path / "own", same)
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )


def test_weights_of_cells_are_trained_apart(latents: Any) -> None:
    mdata = make_cells(MODALITIES["cell"])
    model = MULTIVI.load(DATA / "cell", mdata)
    split = [np.arange(30), np.arange(30, 60), np.arange(0)]
    model.train(
        1,
        reset=True,
        external_indexing=split,
        weight_decay=0.0,
        lr=0.01,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    # A new start sets all of them to one.
    moved = (model.module.mod_weights.detach() != 1).any(dim=1)
    paired = pd.Series(np.asarray(mdata["atac"].X.sum(axis=1)).ravel() > 0)[:30].to_numpy()
    # One modality has the weight 1 whatever its logarithm; cells that are not trained keep theirs.
    assert moved[:30].numpy().tolist() == paired.tolist()
    assert not moved[30:].any()
