"""What a job writes besides the model."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae import load
from cellvae.cli.cells import describe_data
from cellvae.cli.job import Job, check_output_folder, run_job
from cellvae.cli.record import JobRecord
from cellvae.data import synthetic_iid
from cellvae.errors import FileFormatError, InvalidOptionError, TrainingError
from cellvae.model import PEAKVI, SCANVI, SCVI
from cellvae.settings import settings

pytestmark = pytest.mark.trains

PNG = b"\x89PNG\r\n\x1a\n"


QUICK = Job(
    setup={"batch_key": "batch", "labels_key": "labels"},
    config={"n_hidden": 8},
    train={"max_epochs": 1, "enable_progress_bar": False},
    colors=("labels", "batch"),
)


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Settings are put back."""
    values = dict(settings.values)
    yield
    settings.values.update(values)


@pytest.fixture
def flat_umap(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A UMAP that is the first two columns of the latent; numbers of cells of each call."""
    calls: list[int] = []

    def layout(points: np.ndarray, seed: int) -> np.ndarray:
        calls.append(len(points))
        return points[:, :2]

    monkeypatch.setattr("cellvae.plotting.layout.fit_layout", layout)
    return calls


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of `train`, which still trains."""
    calls: list[int] = []
    train = SCVI.train

    def counted(self: SCVI, **kwargs: Any) -> None:
        calls.append(1)
        train(self, **kwargs)

    monkeypatch.setattr(SCVI, "train", counted)
    return calls


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    content = path.read_bytes()
    assert content.startswith(PNG)
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    return width, height


def results(out: Path) -> dict[str, bytes]:
    """Content of the files of results."""
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != "job.json"}


ALL = {"latent.h5ad", "report.json", "training-curves.png", "umap.png", "umap.csv"}


@pytest.mark.parametrize("colors", [(), ("batch", "age")])
def test_a_umap_has_a_panel_for_each_color_and_a_table(
    colors: tuple[str, ...], counts: Path, flat_umap: list[int], tmp_path: Path
) -> None:
    adata = anndata.read_h5ad(counts)
    run_job(adata, dataclasses.replace(QUICK, colors=colors), tmp_path)
    assert flat_umap == [80]
    assert size_of(tmp_path / "umap.png") == (round(6.2 * 150 * max(1, len(colors))), 690)
    table = pd.read_csv(tmp_path / "umap.csv", index_col="cell")
    assert [str(name) for name in table.index] == list(adata.obs_names)
    latent = anndata.read_h5ad(tmp_path / "latent.h5ad").obsm["X_scVI"]
    np.testing.assert_allclose(table.to_numpy(), latent[:, :2], rtol=1e-5)


@pytest.mark.usefixtures("flat_umap")
@pytest.mark.parametrize("missing", [("umap.png",), ("latent.h5ad",), ("report.json",), tuple(ALL)])
def test_the_same_job_again_writes_what_is_missing_and_trains_nothing(
    missing: tuple[str, ...], counts: Path, trainings: list[int], tmp_path: Path
) -> None:
    run_job(anndata.read_h5ad(counts), QUICK, tmp_path)
    before = results(tmp_path)
    assert set(before) == ALL
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in ALL}
    for name in missing:
        (tmp_path / name).unlink()
    run_job(anndata.read_h5ad(counts), QUICK, tmp_path)
    assert trainings == [1]
    after = results(tmp_path)
    assert set(after) == ALL
    assert after["report.json"] == before["report.json"]
    first, second = (
        anndata.read_h5ad(tmp_path / "latent.h5ad").obsm["X_scVI"],
        load(tmp_path / "model", anndata.read_h5ad(counts)).get_latent_representation(),
    )
    assert np.array_equal(first, second)
    for name in ALL - set(missing) - {"umap.csv"}:
        assert (tmp_path / name).stat().st_mtime_ns == times[name]


@pytest.mark.usefixtures("flat_umap")
def test_a_umap_left_out_or_of_other_colors_is_drawn_by_the_next_call(
    counts: Path, trainings: list[int], tmp_path: Path
) -> None:
    run_job(anndata.read_h5ad(counts), dataclasses.replace(QUICK, umap=False), tmp_path)
    assert not (tmp_path / "umap.png").exists()
    run_job(anndata.read_h5ad(counts), QUICK, tmp_path)
    assert size_of(tmp_path / "umap.png")[0] == 1860
    run_job(anndata.read_h5ad(counts), dataclasses.replace(QUICK, colors=("age",)), tmp_path)
    assert size_of(tmp_path / "umap.png")[0] == 930
    assert trainings == [1]


@pytest.mark.parametrize("name", ["umap", "training-curves"])
def test_a_picture_that_fails_is_one_line_and_is_tried_again(
    name: str,
    program: Callable[..., Any],
    counts: Path,
    flat_umap: list[int],
    trainings: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    def broken(*given: Any, **kwargs: Any) -> None:
        raise AttributeError("'csr_array' object has no\nattribute 'getnnz'")

    kwargs = ("train", counts, "--out", tmp_path, "--max-epochs", 1, "--no-enable-progress-bar")
    target = "draw_umap" if name == "umap" else "draw_curves"
    with monkeypatch.context() as patched:
        patched.setattr(f"cellvae.cli.results.{target}", broken)
        ended = program(*kwargs)
    assert ended.code == 0
    (line,) = (text for text in caplog.messages if "could not be drawn" in text)
    assert "\n" not in line
    assert line.startswith(f"Warning: {name}.png could not be drawn (AttributeError: 'csr_array'")
    written = {p.name for p in tmp_path.iterdir()}
    assert {"model", "latent.h5ad", "report.json"} <= written
    assert f"{name}.png" not in written
    assert program(*kwargs).code == 0
    assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
    assert trainings == [1]


def test_results_are_written_in_the_order_of_their_worth(
    counts: Path, flat_umap: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order: list[str] = []
    add = JobRecord.add

    def noted(self: JobRecord, name: str, details: Any = None) -> None:
        order.append(name)
        assert (self.out / name).exists()
        add(self, name, details)

    monkeypatch.setattr(JobRecord, "add", noted)
    run_job(anndata.read_h5ad(counts), QUICK, tmp_path)
    assert order == [
        *("model", "latent.h5ad", "report.json", "training-curves.png", "umap.csv", "umap.png")
    ]


@pytest.mark.usefixtures("flat_umap")
def test_a_disk_that_was_full_costs_no_training(
    counts: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(self: AnnData, filename: Path, **kwargs: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(AnnData, "write_h5ad", full)
        with pytest.raises(OSError, match="disk full"):
            run_job(anndata.read_h5ad(counts), QUICK, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model", "job.json"}
    run_job(anndata.read_h5ad(counts), QUICK, tmp_path)
    assert set(results(tmp_path)) == ALL
    assert trainings == [1]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"config": {"n_hidden": 9}}, "it had --n-hidden 8, now there is --n-hidden 9"),
        ({"train": {"max_epochs": 1, "plan_kwargs": {"lr": 0.1}}}, "no --lr, now there is --lr"),
        ({"setup": {"batch_key": "batch"}}, "it had --labels-key labels, now there is no"),
        ({"seed": 4}, "it had --seed 0, now there is --seed 4"),
        ({"model": "LinearSCVI"}, "it had --model SCVI"),
    ],
)
def test_a_job_with_other_options_is_refused_before_the_cells_are_read(
    kwargs: dict[str, Any], match: str, counts: Path, tmp_path: Path
) -> None:
    job = dataclasses.replace(QUICK, umap=False)
    run_job(anndata.read_h5ad(counts), job, tmp_path)
    before = results(tmp_path)
    with pytest.raises(InvalidOptionError, match=match):
        check_output_folder(tmp_path, dataclasses.replace(job, **kwargs), overwrite=False)
    assert results(tmp_path) == before
    hidden = dataclasses.replace(job, train={**job.train, "enable_progress_bar": True})
    assert check_output_folder(tmp_path, hidden, overwrite=False) is not None
    assert check_output_folder(tmp_path, dataclasses.replace(job, **kwargs), overwrite=True) is None


def changed_count(adata: AnnData) -> AnnData:
    adata.X[3, 4] += 1
    return adata


def swapped_counts(adata: AnnData) -> AnnData:
    adata.X[0, :2], adata.X[1, :2] = [1, 2], [2, 1]
    return adata


def other_batch(adata: AnnData) -> AnnData:
    values = adata.obs["batch"].astype(str).to_numpy()
    values[0] = "batch_1"
    adata.obs["batch"] = values
    return adata


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed_count, "counts"),
        (swapped_counts, "counts"),
        (other_batch, r"values of obs\['batch'\]"),
        (lambda adata: adata[::-1].copy(), "cells"),
        (lambda adata: adata[:, ::-1].copy(), "genes"),
    ],
)
def test_a_job_with_other_data_is_refused(
    change: Callable[[AnnData], AnnData], what: str, counts: Path, tmp_path: Path
) -> None:
    job = dataclasses.replace(QUICK, umap=False)
    adata = anndata.read_h5ad(counts)
    adata.X[0, :2], adata.X[1, :2] = [2, 1], [1, 2]
    run_job(adata.copy(), job, tmp_path)
    with pytest.raises(InvalidOptionError, match=f"the {what} of the file have changed"):
        run_job(change(adata.copy()), job, tmp_path)
    run_job(change(adata.copy()), job, tmp_path, overwrite=True)


def test_the_same_counts_stored_otherwise_are_the_same_data(counts: Path) -> None:
    adata = anndata.read_h5ad(counts)
    setup = {"batch_key": "batch", "continuous_covariate_keys": ["age"]}
    expected = describe_data(adata, setup)
    assert set(expected) == {
        *("genes", "cells", "counts"),
        *("values of obs['batch']", "values of obs['age']"),
    }
    dense = np.asarray(adata.X)
    for counts_again in (
        dense.astype(np.int64),
        dense.astype(np.float64),
        sparse.csr_matrix(dense),
        sparse.csc_array(dense.astype(np.int32)),
    ):
        adata.X = counts_again
        assert describe_data(adata, setup) == expected


def test_a_record_that_cannot_be_read_is_told(counts: Path, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"format": 99}')
    with pytest.raises(FileFormatError, match="its format is 99"):
        check_output_folder(tmp_path, QUICK, overwrite=False)
    assert check_output_folder(tmp_path, QUICK, overwrite=True) is None


def test_a_run_ended_by_hand_is_kept_and_continued_by_the_same_command(
    counts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cellvae.train.loop.training_plan import TrainingPlan

    monkeypatch.setattr("cellvae.cli.job.STATE_INTERVAL_MINUTES", 0)
    job = dataclasses.replace(
        QUICK, umap=False, train={"max_epochs": 4, "enable_progress_bar": False}
    )
    step = TrainingPlan.training_step

    def interrupted(plan: TrainingPlan, batch: Any, batch_idx: int) -> Any:
        if plan.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return step(plan, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingPlan, "training_step", interrupted)
        model = run_job(anndata.read_h5ad(counts), job, tmp_path / "cut")
    assert model.training_report.status == "interrupted"
    assert {"model", "latent.h5ad", "state"} <= {p.name for p in (tmp_path / "cut").iterdir()}
    model = run_job(anndata.read_h5ad(counts), job, tmp_path / "cut")
    assert (model.training_report.status, model.training_report.resumed_epoch) == ("completed", 3)
    assert not (tmp_path / "cut" / "state").exists()
    whole = run_job(anndata.read_h5ad(counts), job, tmp_path / "whole")
    assert np.array_equal(model.get_latent_representation(), whole.get_latent_representation())


@pytest.mark.slow
def test_a_job_of_more_cells_than_are_drawn_draws_a_real_umap(
    program: Callable[..., Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    # Packages that do not fit each other have shown it above 8,192 cells only.
    adata = synthetic_iid(batch_size=6_000, n_genes=20, n_proteins=0, n_regions=0)
    adata.write_h5ad(tmp_path / "counts.h5ad")
    kwargs = ("--max-epochs", 1, "--batch-size", 512, "--n-hidden", 8, "--no-enable-progress-bar")
    keys = ("--batch-key", "batch", "--labels-key", "labels")
    out = tmp_path / "run"
    ended = program("train", tmp_path / "counts.h5ad", "--out", out, *kwargs, *keys)
    assert ended.code == 0
    assert "could not be drawn" not in caplog.text
    assert size_of(out / "umap.png") == (1860, 690)
    table = pd.read_csv(out / "umap.csv", index_col="cell")
    assert table.shape == (10_000, 2)
    assert np.isfinite(table.to_numpy()).all()
    assert anndata.read_h5ad(out / "latent.h5ad").obsm["X_scVI"].shape == (12_000, 10)


def test_latents_have_the_names_of_the_tutorials() -> None:
    keys = [model.latent_key for model in (SCVI, SCANVI, PEAKVI)]
    assert keys == ["X_scVI", "X_scANVI", "X_PEAKVI"]


def test_a_run_that_leaves_no_model_is_a_failure(
    counts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(self: SCVI, **kwargs: object) -> None:
        self.training_report = SimpleNamespace(reason="interrupted by hand in epoch 0")

    monkeypatch.setattr(SCVI, "train", interrupted)
    with pytest.raises(TrainingError, match="interrupted by hand"):
        run_job(anndata.read_h5ad(counts), Job(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
    # Nothing was lost, so another job may take the folder.
    assert check_output_folder(tmp_path, Job(seed=3), overwrite=False) is None
