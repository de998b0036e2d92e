"""`cellvae train --model SOLO`: scores of doublets in the file, from an SCVI trained too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellvae

pytestmark = pytest.mark.trains


def test_scores_and_calls_are_written_and_can_be_filtered(
    program: Callable[..., Any], counts: Path, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    words = ("--model", "SOLO", "--batch-key", "batch", "--layer", "raw", *quick)
    ended = program("train", counts, "--out", tmp_path, *words)
    assert ended.code == 0, ended.err
    adata = anndata.read_h5ad(tmp_path / "latent.h5ad")
    assert adata.shape == (80, 12)
    solo: Any = cellvae.load(tmp_path / "model")
    assert type(solo).__name__ == "SOLO"
    calls = solo.call_doublets()
    np.testing.assert_allclose(adata.obs["doublet_score"], calls["doublet_score"], rtol=1e-6)
    assert [*adata.obs["doublet_call"]] == [*calls["doublet_call"]]
    assert adata.obs["doublet_probability"].between(0, 1).all()
    vae: Any = cellvae.load(tmp_path / "scvi", adata)
    np.testing.assert_allclose(adata.obsm["X_scVI"], vae.get_latent_representation(), atol=1e-5)
    kept = adata[adata.obs["doublet_call"] == "singlet"].copy()
    cellvae.model.SCVI.setup_anndata(kept, layer="raw", batch_key="batch")
    assert cellvae.model.SCVI(kept).adata.n_obs == (calls["doublet_call"] == "singlet").sum()
    assert json.loads((tmp_path / "job.json").read_text())["options"]["model"] == "SOLO"


def test_the_same_command_writes_what_is_missing_without_training(
    program: Callable[..., Any],
    counts: Path,
    tmp_path: Path,
    quick: tuple[str, ...],
) -> None:
    words = ("train", counts, "--out", tmp_path, "--model", "SOLO", *quick)
    assert program(*words).code == 0
    before = anndata.read_h5ad(tmp_path / "latent.h5ad").obs
    times = [(tmp_path / f / "model.json").stat().st_mtime_ns for f in ("model", "scvi")]
    (tmp_path / "latent.h5ad").unlink()
    assert program(*words).code == 0
    assert anndata.read_h5ad(tmp_path / "latent.h5ad").obs.equals(before)
    assert times == [(tmp_path / f / "model.json").stat().st_mtime_ns for f in ("model", "scvi")]
