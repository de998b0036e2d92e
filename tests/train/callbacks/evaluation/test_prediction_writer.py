"""Files of latents and losses, against the model's own answers and closed forms."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from cellvae.data import Split
from cellvae.errors import InvalidOptionError
from cellvae.model import SCVI
from cellvae.train.callbacks.early_stopping.early_stopping import EarlyStopping
from cellvae.train.callbacks.evaluation.prediction_writer import PredictionWriter
from cellvae.train.options.train_kwargs import parse_train_kwargs
from cellvae.train.run.end_of_run import RunResult
from cellvae.train.run.fit import fit

pytestmark = pytest.mark.trains

ALL = ("kl", "latent", "latent_variance", "reconstruction_loss")


def outcome_of(
    module: Any, rows: Any, split: Split, *callbacks: pl.Callback, **kwargs: Any
) -> RunResult:
    given = {"max_epochs": 2, "enable_progress_bar": False, "batch_size": 8, "accelerator": "cpu"}
    parsed = parse_train_kwargs({**given, "callbacks": list(callbacks), **kwargs})
    return fit(module, rows, split, parsed.options, seed=0, callbacks=parsed.callbacks)


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


def needs_zarr(suffix: str) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr", minversion="3")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_all_quantities_are_those_of_the_final_weights(
    module: Any, rows: Any, split: Split, tmp_path: Path, suffix: str
) -> None:
    needs_zarr(suffix)
    path = tmp_path / f"cells{suffix}"
    writer = PredictionWriter(path, quantities=ALL, batch_size=7)
    assert outcome_of(module, rows, split, writer).error is None
    table = read(path)
    assert list(table.obs_names) == [str(i) for i in range(60)]
    batch = rows.take(torch.arange(60))
    with torch.no_grad():
        posterior = module.encode(batch).posterior
    mean, variance = posterior.mean.numpy(), posterior.variance.numpy()
    np.testing.assert_allclose(table.obsm["latent"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table.obsm["latent_variance"], variance, rtol=1e-5)
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)
    np.testing.assert_allclose(table.obs["kl"], kl, rtol=1e-3, atol=1e-5)
    # Another draw of the latent gives nearly the same mean over cells.
    with torch.no_grad():
        again = module.loss(batch, torch.ones(())).total_reconstruction.numpy()
    assert table.obs["reconstruction_loss"].mean() == pytest.approx(again.mean(), rel=0.05)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert writer.written == [str(path)]


def test_draws_do_not_depend_on_what_else_is_written(
    module: Any, rows: Any, split: Split, tmp_path: Path
) -> None:
    whole = PredictionWriter(tmp_path / "a.h5ad", quantities=ALL, batch_size=16)
    one = PredictionWriter(tmp_path / "b.h5ad", quantities=["reconstruction_loss"], batch_size=16)
    outcome_of(module, rows, split, whole, one)
    tables = [read(tmp_path / name) for name in ("a.h5ad", "b.h5ad")]
    first, second = (table.obs["reconstruction_loss"] for table in tables)
    assert first.tolist() == second.tolist()
    assert not tables[1].obsm


def test_a_file_every_few_epochs_has_the_weights_of_then(
    module: Any, rows: Any, split: Split, tmp_path: Path
) -> None:
    class Latents(pl.Callback):
        def __init__(self) -> None:
            self.kept: list[np.ndarray] = []

        def on_epoch_complete(self, trainer: pl.Trainer, plan: Any) -> None:
            generator = torch.get_rng_state()
            plan.module.eval()
            with torch.no_grad():
                batch = rows.take(torch.from_numpy(split.validation))
                self.kept.append(plan.module.encode(batch).posterior.mean.numpy())
            plan.module.train()
            torch.set_rng_state(generator)

    latents = Latents()
    writer = PredictionWriter(tmp_path / "z.h5ad", indices="validation", every_n_epochs=2)
    outcome_of(module, rows, split, writer, latents, max_epochs=5)
    names = ["z-epoch=1.h5ad", "z-epoch=3.h5ad"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    for name, epoch in zip(names, (1, 3), strict=True):
        table = read(tmp_path / name)
        assert list(table.obs_names) == [str(i) for i in range(50, 60)]
        np.testing.assert_allclose(table.obsm["latent"], latents.kept[epoch], rtol=1e-5, atol=1e-6)
    state = writer.state_dict()
    writer.setup(None, None, "fit")  # type: ignore[arg-type]
    assert writer.written == []
    writer.load_state_dict(state)
    assert [Path(p).name for p in writer.written] == names


def test_the_run_is_not_disturbed(module: Any, rows: Any, split: Split, tmp_path: Path) -> None:
    start = {k: v.clone() for k, v in module.state_dict().items()}
    plain = outcome_of(module, rows, split, max_epochs=3).history.table
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(start)
    writer = PredictionWriter(tmp_path / "z.h5ad", quantities=ALL, every_n_epochs=1)
    watched = outcome_of(module, rows, split, writer, max_epochs=3).history.table
    assert len(writer.written) == 3
    assert plain.equals(watched)
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())


def test_best_weights_are_those_that_are_written(
    module: Any, rows: Any, split: Split, tmp_path: Path
) -> None:
    stop = EarlyStopping("elbo_validation", mode="max", patience=1, restore_best=True)
    writer = PredictionWriter(tmp_path / "z.h5ad", indices=[3, 1])
    report = outcome_of(module, rows, split, writer, stop, max_epochs=9).report
    assert report.restored_epoch is not None
    with torch.no_grad():
        mean = module.encode(rows.take(torch.tensor([3, 1]))).posterior.mean.numpy()
    table = read(tmp_path / "z.h5ad")
    np.testing.assert_allclose(table.obsm["latent"], mean, rtol=1e-5, atol=1e-6)
    assert list(table.obs_names) == ["3", "1"]


def test_double_precision(module: Any, rows: Any, split: Split, tmp_path: Path) -> None:
    end = PredictionWriter(tmp_path / "end.h5ad", quantities=ALL)
    each = PredictionWriter(tmp_path / "each.h5ad", quantities=ALL, every_n_epochs=1)
    assert outcome_of(module, rows, split, end, each, precision="64-true").error is None
    assert end.written and len(each.written) == 2
    last = read(Path(each.written[-1]))
    np.testing.assert_allclose(
        last.obsm["latent"], read(tmp_path / "end.h5ad").obsm["latent"], atol=1e-5
    )


def test_nothing_is_written_where_a_run_failed(
    module: Any, rows: Any, split: Split, tmp_path: Path
) -> None:
    class Failing(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                raise ValueError("no more")

    writer = PredictionWriter(tmp_path / "z.h5ad")
    assert outcome_of(module, rows, split, writer, Failing()).error is not None
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_that_is_interrupted_leaves_what_its_model_says(
    module: Any, rows: Any, split: Split, tmp_path: Path, epoch: int
) -> None:
    class Interrupting(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

    writer = PredictionWriter(tmp_path / "z.h5ad")
    report = outcome_of(module, rows, split, writer, Interrupting()).report
    assert report.status == "interrupted"
    # Before the first whole epoch there is nothing to say.
    assert len(writer.written) == epoch
    if epoch:
        with torch.no_grad():
            mean = module.encode(rows.take(torch.arange(60))).posterior.mean.numpy()
        found = read(tmp_path / "z.h5ad").obsm["latent"]
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)


def test_a_broken_write_leaves_nothing(
    module: Any, rows: Any, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, rows: Any, values: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr("cellvae.data.files.streaming_writer.CellWriter.write", full)
    writer = PredictionWriter(tmp_path / "z.h5ad")
    assert outcome_of(module, rows, split, writer).error is None  # the model is there all the same
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_file_is_replaced_only_where_it_is_asked_for(
    module: Any, rows: Any, split: Split, tmp_path: Path, suffix: str
) -> None:
    needs_zarr(suffix)
    path = tmp_path / f"z{suffix}"
    outcome_of(module, rows, split, PredictionWriter(path))
    with pytest.raises(InvalidOptionError, match="does not exist yet"):
        PredictionWriter(path)
    writer = PredictionWriter(path, indices=[0], overwrite=True)
    outcome_of(module, rows, split, writer)
    assert read(path).n_obs == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_wrong_is_told_before_training(
    module: Any, rows: Any, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "z.h5ad"
    with pytest.raises(InvalidOptionError, match="Did you mean 'latent'"):
        PredictionWriter(path, quantities=["latant"])
    with pytest.raises(InvalidOptionError, match="a list"):
        PredictionWriter(path, quantities="latent")
    with pytest.raises(InvalidOptionError, match="batch_size to be at least 1"):
        PredictionWriter(path, batch_size=0)
    with pytest.raises(InvalidOptionError, match="ends in .h5ad or .zarr"):
        PredictionWriter(tmp_path / "z.csv")
    empty = outcome_of(module, rows, split, PredictionWriter(path, indices="test"))
    assert isinstance(empty.error, InvalidOptionError)
    assert "at least one cell" in str(empty.error)
    assert empty.report.epochs == 0

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("cellvae.data.files.streaming_writer.version", absent)
    with pytest.raises(InvalidOptionError, match="package zarr"):
        PredictionWriter(tmp_path / "z.zarr")


def test_real_cells_by_name(shared_data: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[:300].copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=16)
    writer = PredictionWriter(tmp_path / "z.h5ad", quantities=ALL, batch_size=100)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False, callbacks=[writer])
    table = read(tmp_path / "z.h5ad")
    assert list(table.obs_names) == list(adata.obs_names)
    np.testing.assert_allclose(
        table.obsm["latent"], model.get_latent_representation(), rtol=1e-4, atol=1e-5
    )
    elbo = table.obs["reconstruction_loss"].mean() + table.obs["kl"].mean()
    assert -elbo == pytest.approx(float(model.get_elbo()), rel=0.02)


@pytest.mark.gpu
def test_cells_of_a_run_on_a_gpu(module: Any, rows: Any, split: Split, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    end = PredictionWriter(tmp_path / "end.h5ad", quantities=ALL)
    each = PredictionWriter(tmp_path / "each.h5ad", quantities=ALL, every_n_epochs=2)
    assert outcome_of(module, rows, split, end, each, accelerator="cuda").error is None
    final, last = read(Path(end.written[0])), read(Path(each.written[0]))
    np.testing.assert_allclose(last.obsm["latent"], final.obsm["latent"], rtol=1e-3, atol=1e-4)
    assert last.obs["kl"].tolist() == pytest.approx(final.obs["kl"].tolist(), rel=1e-3, abs=1e-4)
