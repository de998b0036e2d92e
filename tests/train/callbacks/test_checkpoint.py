"""Checkpoints: which models are kept, and which weights come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from cellvae.data import synthetic_iid
from cellvae.errors import InvalidOptionError, TrainingError
from cellvae.model import SCVI
from cellvae.train import SaveCheckpoint


class Script(pl.Callback):
    """Logs a metric from a list, raises what is in it, and notes the weights after each epoch."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.seen: list[torch.Tensor] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = self.values[trainer.current_epoch]
        if isinstance(value, BaseException):
            raise value
        pl_module.log("script_loss", value)
        self.seen.append(flat(pl_module.module))  # type: ignore[arg-type]


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.state_dict().values()]).double()


@pytest.fixture
def model() -> SCVI:
    adata = synthetic_iid(batch_size=40, n_genes=15)
    SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    return SCVI(adata, n_hidden=8, n_latent=2)


def run(model: SCVI, values: list[Any], saver: SaveCheckpoint) -> Script:
    script = Script(values)
    try:
        model.train(len(values), callbacks=[script, saver], seed=0, enable_progress_bar=False)
    finally:
        script.values = []
    return script


def test_the_best_is_kept_loadable_and_brought_back(model: SCVI, tmp_path: Path) -> None:
    saver = SaveCheckpoint(tmp_path, monitor="script_loss")
    script = run(model, [5.0, 2.0, 3.0, 4.0], saver)
    folder = tmp_path / "epoch=1-script_loss=2.0000"
    assert list(tmp_path.iterdir()) == [folder]
    assert saver.best_model_path == str(folder)
    assert saver.best_model_score == 2.0
    assert saver.best_epoch == 1
    assert torch.equal(flat(model.module), script.seen[1])
    report = model.training_report
    assert report is not None
    assert (report.restored_epoch, report.best_path) == (1, str(folder))
    loaded = SCVI.load(folder, model.adata)
    assert torch.equal(flat(loaded.module), script.seen[1])
    assert loaded.is_trained
    assert loaded.history.epochs == [0, 1]
    assert (loaded.train_indices == model.train_indices).all()
    assert (loaded.get_latent_representation() == model.get_latent_representation()).all()


def test_the_last_weights_stay_when_asked(model: SCVI, tmp_path: Path) -> None:
    script = run(
        model,
        [5.0, 2.0, 3.0],
        SaveCheckpoint(tmp_path, monitor="script_loss", load_best_on_end=False),
    )
    assert torch.equal(flat(model.module), script.seen[2])


def test_an_exception_reaches_the_caller_and_the_best_comes_back(
    model: SCVI, tmp_path: Path
) -> None:
    error = RuntimeError("CUDA out of memory")
    saver = SaveCheckpoint(tmp_path, monitor="script_loss")
    script = Script([5.0, 2.0, 3.0, error])
    with pytest.raises(RuntimeError, match="CUDA out of memory") as info:
        model.train(4, callbacks=[script, saver], seed=0, enable_progress_bar=False)
    assert info.value is error
    assert torch.equal(flat(model.module), script.seen[1])
    assert model.is_trained
    assert model.get_latent_representation().shape == (80, 2)
    assert model.training_report is not None
    assert model.training_report.status == "failed"
    assert not model.module.training


def test_an_exception_before_the_first_checkpoint_is_not_masked(
    model: SCVI, tmp_path: Path
) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError, match="mine") as info:
        run(model, [error], SaveCheckpoint(tmp_path, monitor="script_loss"))
    assert info.value is error
    assert not model.is_trained


def test_a_checkpoint_that_vanished_does_not_mask_the_exception(
    model: SCVI, tmp_path: Path
) -> None:
    import shutil

    class Vanish(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 2:
                shutil.rmtree(tmp_path)
                raise ZeroDivisionError("first")

    saver = SaveCheckpoint(tmp_path, monitor="script_loss")
    with pytest.raises(ZeroDivisionError, match="first"):
        model.train(
            3,
            callbacks=[Script([2.0, 3.0, 4.0]), saver, Vanish()],
            seed=0,
            enable_progress_bar=False,
        )


@pytest.mark.parametrize(
    ("values", "options", "kept", "best"),
    [
        ([5.0, 2.0, 3.0, 4.0], {"save_top_k": 2}, [1, 2], 1),
        ([5.0, 2.0, 3.0, 4.0], {"save_top_k": -1}, [0, 1, 2, 3], 1),
        ([5.0, 2.0, 3.0, 4.0], {"mode": "max"}, [0], 0),
        ([5.0, 2.0, 1.0, 4.0], {"every_n_epochs": 2}, [1], 1),
        ([float("nan"), 2.0, float("-inf"), 4.0], {"save_top_k": 2}, [1, 3], 1),
        ([float("nan"), float("nan")], {}, [], None),
    ],
)
def test_which_are_kept(
    model: SCVI,
    tmp_path: Path,
    values: list[float],
    options: dict[str, Any],
    kept: list[int],
    best: int | None,
) -> None:
    saver = SaveCheckpoint(tmp_path, "{epoch}", monitor="script_loss", **options)
    run(model, values, saver)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"epoch={epoch}" for epoch in kept]
    assert sorted(saver.best_k_models) == sorted(str(tmp_path / f"epoch={epoch}") for epoch in kept)
    assert saver.best_epoch == best


def test_names_are_filled_in_with_metrics(model: SCVI, tmp_path: Path) -> None:
    run(
        model,
        [5.0],
        SaveCheckpoint(
            tmp_path, "best-{epoch:02d}-{script_loss:.1f}-{step}", monitor="script_loss"
        ),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["best-epoch=00-script_loss=5.0-step=1"]
    with pytest.raises(InvalidOptionError, match=r"got '\{wombats\}'"):
        run(model, [5.0], SaveCheckpoint(tmp_path, "{wombats}", monitor="script_loss"))


def test_without_a_folder_every_run_gets_its_own(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saver = SaveCheckpoint()
    for _ in range(2):
        model.train(1, callbacks=saver, enable_progress_bar=False)
    folders = list((tmp_path / "checkpoints").iterdir())
    assert len(folders) == 2
    assert all("elbo_validation" in folder.name for folder in folders)


def test_one_saver_serves_two_models_without_mixing_them(model: SCVI, tmp_path: Path) -> None:
    saver = SaveCheckpoint(tmp_path, monitor="script_loss")
    run(model, [1.0, 2.0], saver)
    torch.manual_seed(1)
    other = SCVI(model.adata, n_hidden=8, n_latent=2)
    script = run(other, [50.0, 60.0], saver)
    assert saver.best_model_score == 50.0
    assert torch.equal(flat(other.module), script.seen[0])


def test_a_gradient_that_is_not_finite_stops_training_before_it_reaches_the_weights(
    model: SCVI, tmp_path: Path
) -> None:
    class Poison(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 2:
                next(pl_module.parameters()).grad.mul_(float("nan"))  # type: ignore[union-attr]

    saver = SaveCheckpoint(tmp_path, monitor="script_loss")
    script = Script([5.0, 2.0, 1.0, 1.0])
    with pytest.raises(TrainingError, match=r"not finite in epoch 2 \(step 2\)"):
        model.train(4, callbacks=[script, saver, Poison()], seed=0, enable_progress_bar=False)
    assert torch.equal(flat(model.module), script.seen[1])
    assert bool(torch.isfinite(flat(model.module)).all())


def test_the_call_of_a_notebook_works_as_written(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    early_stopping_kwargs = {
        "early_stopping": True,
        "early_stopping_monitor": "elbo_validation",
        "early_stopping_patience": 10,
        "early_stopping_min_delta": 0.0,
        "check_val_every_n_epoch": 1,
    }
    callbacks = [
        SaveCheckpoint(monitor="elbo_validation", load_best_on_end=True, check_nan_gradients=True)
    ]
    model.train(
        max_epochs=20, **early_stopping_kwargs, callbacks=callbacks, enable_progress_bar=False
    )  # type: ignore[arg-type]
    assert len(callbacks) == 1
    best = model.history["elbo_validation"]["elbo_validation"]
    report = model.training_report
    assert report is not None
    assert report.best_epoch == best.idxmin()
    assert report.best_score == pytest.approx(best.min())
    assert Path(callbacks[0].best_model_path).exists()


def test_enable_checkpointing_adds_one_unless_there_is_one(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.train(1, enable_checkpointing=True, enable_progress_bar=False)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    stock = pl.callbacks.ModelCheckpoint(tmp_path / "stock", monitor="elbo_validation")
    model.train(1, enable_checkpointing=True, callbacks=[stock], enable_progress_bar=False)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert Path(stock.best_model_path).exists()


@pytest.mark.parametrize("options", [{"save_top_k": 0}, {"save_top_k": -2}, {"every_n_epochs": 0}])
def test_numbers_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        SaveCheckpoint(**options)  # type: ignore[arg-type]
