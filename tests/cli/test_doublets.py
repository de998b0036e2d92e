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
    arguments = ("--model", "SOLO", "--batch-key", "batch", "--layer", "raw", *quick)
    ended = program("train", counts, "--out", tmp_path, *arguments)
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


@pytest.mark.slow
def test_the_same_command_writes_what_is_missing_without_training(
    program: Callable[..., Any],
    counts: Path,
    tmp_path: Path,
    quick: tuple[str, ...],
) -> None:
    arguments = ("train", counts, "--out", tmp_path, "--model", "SOLO", *quick)
    assert program(*arguments).code == 0
    before = anndata.read_h5ad(tmp_path / "latent.h5ad").obs
    times = [(tmp_path / f / "model.json").stat().st_mtime_ns for f in ("model", "scvi")]
    (tmp_path / "latent.h5ad").unlink()
    assert program(*arguments).code == 0
    assert anndata.read_h5ad(tmp_path / "latent.h5ad").obs.equals(before)
    assert times == [(tmp_path / f / "model.json").stat().st_mtime_ns for f in ("model", "scvi")]


@pytest.mark.slow
def test_as_many_are_called_as_the_flag_says(
    program: Callable[..., Any], counts: Path, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    arguments = ("train", counts, "--out", tmp_path, "--model", "SOLO", *quick)
    refused = program(*arguments, "--expected-rate", "1.5")
    assert refused.code == 2
    assert "a fraction from 0 to 1; got 1.5" in refused.err
    assert not (tmp_path / "scvi").exists()
    ended = program(*arguments, "--expected-rate", "0.1")
    assert ended.code == 0, ended.err
    calls = anndata.read_h5ad(tmp_path / "latent.h5ad").obs["doublet_call"]
    assert (calls == "doublet").sum() == 8  # of 80 cells
    other = program(*arguments, "--expected-rate", "0.2")
    assert other.code == 2
    assert "--expected-rate 0.1" in other.err
    elsewhere = program("train", counts, "--out", tmp_path, "--expected-rate", "0.1")
    assert "SCVI has no --expected-rate; SOLO has." in elsewhere.err


def test_the_scvi_has_epochs_of_its_own(
    program: Callable[..., Any],
    counts: Path,
    tmp_path: Path,
    quick: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = ("train", counts, "--out", tmp_path, "--model", "SOLO", *quick)
    refused = program(*arguments, "--scvi-max-epochs", "0")
    assert refused.code == 2
    assert "Expected scvi_max_epochs to be at least 1; got 0." in refused.err
    assert not (tmp_path / "scvi").exists()
    ended = program(*arguments, "--scvi-max-epochs", "3")
    assert ended.code == 0, ended.err
    assert "Training the SCVI whose latent is read, for 3 epochs" in caplog.text
    adata = anndata.read_h5ad(tmp_path / "latent.h5ad")
    vae: Any = cellvae.load(tmp_path / "scvi", adata)
    solo: Any = cellvae.load(tmp_path / "model")
    assert (len(vae.history.epochs), len(solo.history.epochs)) == (3, 2)


@pytest.mark.slow
def test_each_batch_may_have_a_rate(
    program: Callable[..., Any], counts: Path, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    batches = anndata.read_h5ad(counts).obs["batch"]
    arguments = ("--model", "SOLO", "--batch-key", "batch", *quick, "--expected-rate")
    names = [*batches.unique()]
    refused = program("train", counts, "--out", tmp_path, *arguments, json.dumps({names[0]: 0.1}))
    assert refused.code == 2
    assert names[1] in refused.err
    rates = {name: 0.1 * (i + 1) for i, name in enumerate(names)}
    ended = program("train", counts, "--out", tmp_path, *arguments, json.dumps(rates))
    assert ended.code == 0, ended.err
    obs = anndata.read_h5ad(tmp_path / "latent.h5ad").obs
    called = (obs["doublet_call"] == "doublet").groupby(obs["batch"], observed=True).sum()
    sizes = obs.groupby("batch", observed=True).size()
    assert {name: called[name] for name in names} == {
        name: round(rates[name] * sizes[name]) for name in names
    }
