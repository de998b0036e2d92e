"""`cellvae train` and `cellvae report` for several modalities, from AnnData and MuData."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cellvae
from cellvae.data.mudata_adapter import keep_columns

N_CELLS = 50
LAYERS = {
    "MULTIVI": {"rna_layer": "rna", "atac_layer": "atac", "protein_layer": "prot"},
    "TOTALVI": {"rna_layer": "rna", "protein_layer": "prot"},
}


@pytest.fixture(scope="module")
def tables() -> dict[str, anndata.AnnData]:
    """Genes, regions and proteins of the same cells."""
    rng = np.random.default_rng(0)
    counts = {
        "rna": rng.poisson(2, (N_CELLS, 12)) + 1.0,
        "atac": (rng.random((N_CELLS, 20)) < 0.4) + 0.0,
        "prot": rng.poisson(6, (N_CELLS, 11)) + 1.0,
    }
    counts["atac"][:, 0] = 1
    made = {}
    for name, values in counts.items():
        table = anndata.AnnData(sparse.csr_matrix(values, dtype=np.float32))
        table.obs_names = [f"cell{i}" for i in range(N_CELLS)]
        table.var_names = [f"{name}{i}" for i in range(values.shape[1])]
        made[name] = table
    return made


@pytest.fixture(scope="module")
def files(
    tables: dict[str, anndata.AnnData], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A MuData whose regions lack ten cells, and an AnnData of all features, by their ends."""
    folder = tmp_path_factory.mktemp("modalities")
    batch = pd.Categorical(np.array(["a", "b"])[np.arange(N_CELLS) % 2])
    with keep_columns(mudata):
        modalities = {name: table.copy() for name, table in tables.items()}
        modalities["atac"] = modalities["atac"][10:].copy()
        mdata = mudata.MuData(modalities)
    mdata.obs["batch"] = pd.Series(batch, index=tables["rna"].obs_names).loc[mdata.obs_names]
    mdata.write(folder / "cells.h5mu")
    adata = anndata.concat([tables["atac"], tables["rna"]], axis=1)
    adata.var["feature_types"] = ["Peaks"] * 20 + ["Gene Expression"] * 12
    adata.obs["batch"] = batch
    adata.obsm["prot"] = tables["prot"].to_df()
    adata.write_h5ad(folder / "cells.h5ad")
    adata[:, 20:].copy().write_h5ad(folder / "genes.h5ad")
    return {"h5mu": folder / "cells.h5mu", "h5ad": folder / "cells.h5ad"}


@pytest.mark.trains
@pytest.mark.parametrize("suffix", ["h5mu", "h5ad"])
@pytest.mark.parametrize("model", ["MULTIVI", "TOTALVI"])
def test_results_and_page_have_every_modality(
    program: Callable[..., Any], files: dict[str, Path], model: str, suffix: str, tmp_path: Path
) -> None:
    path = files[suffix]
    if suffix == "h5ad" and model == "TOTALVI":
        path = path.with_name("genes.h5ad")
    source = (
        ("--modalities", json.dumps(LAYERS[model]))
        if suffix == "h5mu"
        else ("--protein-expression-obsm-key", "prot")
    )
    flags = ("--max-epochs", 2, "--n-latent", 3, "--no-umap", "--no-enable-progress-bar")
    arguments = ("train", path, "--out", tmp_path, "--model", model, "--batch-key", "batch")
    ended = program(*arguments, *source, *flags)
    assert ended.code == 0, ended.err
    latent = tmp_path / f"latent.{suffix}"
    cells = mudata.read(latent) if suffix == "h5mu" else anndata.read_h5ad(latent)
    again = cellvae.load(tmp_path / "model", cells)
    np.testing.assert_array_equal(cells.obsm[again.latent_key], again.get_latent_representation())
    sizes = cells.obsm.get("library_size_factors")
    assert (sizes is not None) == (model == "MULTIVI")
    if model == "MULTIVI":
        found = again.get_library_size_factors(silent=True)
        np.testing.assert_allclose(sizes["accessibility"], found["accessibility"], rtol=1e-5)
    assert cells.obsm["protein_foreground_probability"].shape == (N_CELLS, 11)
    assert ("denoised_protein" in cells.obsm) == (model == "TOTALVI")
    if model == "MULTIVI":
        lacking = 10 if suffix == "h5mu" else 0
        counts = again.registration.modality_cells
        assert counts["genes + regions + proteins"] == N_CELLS - lacking
        assert counts.get("genes + proteins", 0) == lacking
    ended = program("report", tmp_path, "--adata", path, "--n-cells", 40)
    assert ended.code == 0, ended.err
    page = (tmp_path / "report.html").read_text()
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    axes = ["genes", "regions", "proteins"] if model == "MULTIVI" else ["genes", "proteins"]
    for axis in axes:
        assert f"Do its counts of {axis} look like the data?" in titles
    assert "Proteins" in titles
    assert ("The 20 regions that differ most" in titles) == (model == "MULTIVI")
    assert "They could not be made" not in page
    assert ("genes + regions + proteins" in page) == (model == "MULTIVI")


def test_modalities_that_do_not_fit_are_named(
    program: Callable[..., Any], files: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ("train", files["h5mu"], "--out", tmp_path, "--model", "MULTIVI")
    for given, message in (
        ('{"rna_layr": "rna"}', "Did you mean 'rna_layer'"),
        ('{"rna_layer": "rn"}', "Did you mean 'rna'"),
        ("{}", "none for 'rna', 'atac', 'prot'. Give for example --modalities"),
        ("rna_layer=rna", "modalities"),
    ):
        ended = program(*arguments, "--modalities", given)
        assert ended.code == 2
        assert message in ended.err
    assert program("train", files["h5mu"], "--out", tmp_path).code == 2
