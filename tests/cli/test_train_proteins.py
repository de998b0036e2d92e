"""`cellvae train --model TOTALVI` from an h5ad and from an h5mu file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellvae
from cellvae.data import synthetic_iid

mudata = pytest.importorskip("mudata")
pytestmark = pytest.mark.trains
MODALITIES = {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same 80 cells as an AnnData and as a MuData."""
    folder = tmp_path_factory.mktemp("proteins")
    adata = synthetic_iid(batch_size=40, n_genes=12, n_proteins=5, n_regions=0)
    proteins = anndata.AnnData(
        np.asarray(adata.obsm["protein_expression"]), obs=adata.obs[["labels"]].copy()
    )
    proteins.var_names = [f"protein{i}" for i in range(5)]
    rna = anndata.AnnData(adata.X.copy(), obs=adata.obs[["batch"]].copy())
    rna.var_names = [f"gene{i}" for i in range(12)]
    mudata.MuData({"rna": rna, "protein": proteins}).write(folder / "cells.h5mu")
    rna.obsm["proteins"] = proteins.to_df()
    rna.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad", folder / "cells.h5mu"


def test_both_files_give_the_same_model_and_tables_of_proteins(
    program: Callable[..., Any], quick: tuple[str, ...], files: tuple[Path, Path], tmp_path: Path
) -> None:
    setups: list[tuple[str, ...]] = [
        ("--protein-expression-obsm-key", "proteins", "--batch-key", "batch"),
        ("--batch-key", "batch", "--modalities", json.dumps(MODALITIES)),
    ]
    latents = []
    for path, arguments in zip(files, setups, strict=True):
        out = tmp_path / path.suffix[1:]
        flags = ("--model", "TOTALVI", "--seed", 1, "--n-latent", 3)
        ended = program("train", path, "--out", out, *flags, *arguments, *quick)
        assert ended.code == 0, ended.err
        read = anndata.read_h5ad if path.suffix == ".h5ad" else mudata.read_h5mu
        cells: Any = read(out / f"latent{path.suffix}")
        latents.append(cells.obsm["X_totalVI"])
        for name in ("denoised_protein", "protein_foreground_probability"):
            assert np.asarray(cells.obsm[name]).shape == (80, 5)
            assert np.isfinite(np.asarray(cells.obsm[name])).all()
        report = json.loads((out / "report.json").read_text())
        assert report["status"] == "completed"
        model: Any = cellvae.load(out / "model")
        assert type(model).__name__ == "TOTALVI"
        assert model.registration.axes["proteins"].features[0] == "protein0"
    np.testing.assert_array_equal(*latents)


def test_modalities_that_are_missing_are_one_line(
    program: Callable[..., Any], files: tuple[Path, Path], tmp_path: Path
) -> None:
    ended = program("train", files[1], "--out", tmp_path, "--model", "TOTALVI")
    assert ended.code == 2
    assert "Expected --modalities for a MuData; got none for 'rna', 'protein'." in ended.err
    example = """--modalities '{"rna_layer": "rna", "protein_layer": "protein"}'."""
    assert example in " ".join(ended.err.split())
