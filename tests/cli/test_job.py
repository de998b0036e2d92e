"""What a job writes besides the model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
from anndata import AnnData

from cellvae.cli.job import Job, draw_umap, latent_key, replace, run_job
from cellvae.errors import TrainingError
from cellvae.model import SCVI
from cellvae.settings import settings

PNG = b"\x89PNG\r\n\x1a\n"


def stub_scanpy(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, object]]) -> None:
    """A scanpy whose UMAP is the first two columns of the latent."""

    def neighbors(adata: AnnData, use_rep: str, random_state: int) -> None:
        calls.append((use_rep, random_state))

    def umap(adata: AnnData, random_state: int) -> None:
        adata.obsm["X_umap"] = np.asarray(adata.obsm[str(calls[-1][0])])[:, :2]

    stub = SimpleNamespace(pp=SimpleNamespace(neighbors=neighbors), tl=SimpleNamespace(umap=umap))
    monkeypatch.setitem(sys.modules, "scanpy", stub)


@pytest.mark.parametrize("colors", [[], ["batch", "age"]])
def test_a_umap_has_a_panel_for_each_color(
    colors: list[str], counts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    calls: list[tuple[str, object]] = []
    stub_scanpy(monkeypatch, calls)
    adata = anndata.read_h5ad(counts)
    adata.obsm["X_scVI"] = np.random.default_rng(0).normal(size=(80, 3))
    draw_umap(adata, "X_scVI", colors, tmp_path / "umap.png", 7)
    assert calls == [("X_scVI", 7)]
    content = (tmp_path / "umap.png").read_bytes()
    assert content.startswith(PNG)
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (round(6.2 * 150 * max(1, len(colors))), round(4.6 * 150))


@pytest.mark.slow
def test_a_job_draws_a_real_umap(counts: Path, tmp_path: Path) -> None:
    pytest.importorskip("scanpy")
    values = dict(settings.values)
    try:
        job = Job(
            setup={"batch_key": "batch"},
            config={"n_hidden": 8},
            train={"max_epochs": 1, "enable_progress_bar": False},
            colors=("batch",),
        )
        run_job(anndata.read_h5ad(counts), job, tmp_path)
    finally:
        settings.values.update(values)
    assert (tmp_path / "umap.png").read_bytes().startswith(PNG)
    assert anndata.read_h5ad(tmp_path / "latent.h5ad").obsm["X_umap"].shape == (80, 2)


def test_a_file_is_replaced_whole_or_not_at_all(
    counts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "latent.h5ad"
    path.write_text("older")
    adata = anndata.read_h5ad(counts)

    def cut(self: AnnData, filename: Path) -> None:
        Path(filename).write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(AnnData, "write_h5ad", cut)
        with pytest.raises(OSError, match="disk full"):
            replace(path, adata)
    assert path.read_text() == "older"
    replace(path, adata)
    assert anndata.read_h5ad(path).shape == (80, 12)
    assert [p.name for p in tmp_path.iterdir()] == ["latent.h5ad"]


def test_latents_have_the_names_of_the_tutorials() -> None:
    assert latent_key(SCVI.__new__(SCVI)) == "X_scVI"
    assert latent_key(3) == "X_int"


def test_a_run_that_leaves_no_model_is_a_failure(
    counts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = dict(settings.values)

    def interrupted(self: SCVI, **words: object) -> None:
        self.training_report = SimpleNamespace(reason="interrupted by hand in epoch 0")

    monkeypatch.setattr(SCVI, "train", interrupted)
    try:
        with pytest.raises(TrainingError, match="interrupted by hand"):
            run_job(anndata.read_h5ad(counts), Job(), tmp_path)
    finally:
        settings.values.update(values)
    assert not list(tmp_path.iterdir())
