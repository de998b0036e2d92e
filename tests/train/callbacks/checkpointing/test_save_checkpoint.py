"""Checkpoints: which models are kept, and which weights come back."""

from __future__ import annotations

import datetime
import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from anndata import read_h5ad

from cellvae.data import synthetic_iid
from cellvae.errors import InvalidOptionError, TrainingWarning
from cellvae.model import SCVI
from cellvae.train import SaveCheckpoint, TrainingCheckpoint
from cellvae.train.callbacks.checkpointing.checkpoint_name import safe_name
from cellvae.train.callbacks.checkpointing.checkpoint_trigger import CheckpointTrigger
from cellvae.train.loop.training_plan import TrainingPlan

pytestmark = pytest.mark.trains


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


def folders(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if each.is_dir())


def index_of(path: Path) -> dict[str, dict[str, Any]]:
    listed = json.loads((path / "checkpoints.json").read_text())["checkpoints"]
    return {each["name"]: each for each in listed}


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
    assert folders(tmp_path) == [folder.name]
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
    assert folders(tmp_path) == [f"epoch={epoch}" for epoch in kept]
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
    assert folders(tmp_path) == ["best-epoch=00-script_loss=5.0-step=1"]
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


def test_nan_never_becomes_best(model: SCVI, tmp_path: Path) -> None:
    class Poison(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    next(pl_module.module.parameters())[0] = float("inf")

    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss", save_top_k=-1, save_last=True)
    script = Script([5.0, 2.0, 1.0])
    with pytest.warns(TrainingWarning, match="not finite"):
        model.train(3, callbacks=[script, saver, Poison()], seed=0, enable_progress_bar=False)
    assert folders(tmp_path) == ["epoch=0", "epoch=1", "last"]
    assert saver.best_epoch == 1
    assert torch.equal(flat(model.module), script.seen[1])
    last = flat(SCVI.load(tmp_path / "last", model.adata).module)
    assert torch.equal(last, script.seen[1])


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


@pytest.mark.parametrize("options", [{"save_top_k": -2}, {"every_n_epochs": 0}])
def test_numbers_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        SaveCheckpoint(**options)  # type: ignore[arg-type]


def test_the_index_says_what_each_is_and_why_it_was_kept(model: SCVI, tmp_path: Path) -> None:
    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss", save_top_k=2, epochs=[1, 4])
    run(model, [5.0, 2.0, 3.0, 4.0], saver)
    index = index_of(tmp_path)
    assert sorted(index) == folders(tmp_path) == ["epoch=0", "epoch=1", "epoch=2", "epoch=3"]
    assert [index[f"epoch={i}"]["why"] for i in range(4)] == [
        *(["epochs"], ["best"], ["best"], ["epochs"]),
    ]
    assert [(m.path.name, m.epoch, m.score) for m in saver.top_k] == [
        ("epoch=1", 1, 2.0),
        ("epoch=2", 2, 3.0),
    ]
    table = model.history.table
    for i, (name, entry) in enumerate(sorted(index.items())):
        assert entry["metrics"] == table.loc[i].dropna().to_dict()
        assert (entry["epoch"], entry["step"]) == (i, i + 1)
        record = json.loads((tmp_path / name / "model.json").read_text())
        inside = record["training"]["checkpoint"]
        assert inside["metrics"] == entry["metrics"]
        assert inside["run_id"] == entry["run_id"] != ""
        loaded = SCVI.load(tmp_path / name, model.adata)
        assert loaded.history.epochs == list(range(i + 1))
        assert (loaded.train_indices == model.train_indices).all()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"monitor": None, "epochs": range(1, 6, 2)}, [0, 2, 4]),
        ({"monitor": None, "epochs": lambda n: n > 3}, [3, 4]),
        ({"monitor": None, "every_n_epochs": 2}, [1, 3]),
        ({"monitor": None, "every_n_epochs": 2, "epochs": {5}}, [1, 3, 4]),
        ({"monitor": None, "every_n_minutes": 0.0}, [0, 1, 2, 3, 4]),
        ({"monitor": "script_loss", "epochs": [3]}, [1, 2]),
        ({"monitor": "script_loss", "epochs": [3], "save_top_k": 0}, [2]),
        ({"monitor": "script_loss", "every_n_epochs": 2, "every_n_minutes": 1e3}, [1]),
    ],
)
def test_epochs_can_be_chosen(
    model: SCVI, tmp_path: Path, options: dict[str, Any], kept: list[int]
) -> None:
    saver = SaveCheckpoint(tmp_path, "{epoch}", **options)
    script = run(model, [5.0, 2.0, 3.0, 4.0, 6.0], saver)
    assert folders(tmp_path) == [f"epoch={i}" for i in kept]
    for i in kept:
        loaded = SCVI.load(tmp_path / f"epoch={i}", model.adata)
        assert torch.equal(flat(loaded.module), script.seen[i])
    if options["monitor"] is None:
        assert (saver.best_path, saver.top_k, saver.followed_metrics()) == (None, [], [])
        assert torch.equal(flat(model.module), script.seen[4])


def test_minutes_are_counted_from_the_last_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    trigger = CheckpointTrigger(None, 3, 2.0)
    found = []
    for n in range(1, 7):
        clock[0] += 50
        found.append(trigger.elapsed_periods(n))
    assert found == [[], [], ["every_n_epochs", "every_n_minutes"]] * 2


def test_the_last_is_that_of_the_last_epoch_and_not_the_best(model: SCVI, tmp_path: Path) -> None:
    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss", save_last=True)
    script = run(model, [5.0, 2.0, 3.0], saver)
    assert folders(tmp_path) == ["epoch=1", "last"]
    assert saver.last_model_path == str(tmp_path / "last")
    last = SCVI.load(tmp_path / "last", model.adata)
    assert torch.equal(flat(last.module), script.seen[2])
    assert last.history.epochs == [0, 1, 2]
    assert index_of(tmp_path)["last"]["epoch"] == 2
    assert torch.equal(flat(model.module), script.seen[1])


def test_the_model_at_an_exception_is_kept_beside_the_best(model: SCVI, tmp_path: Path) -> None:
    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss", save_last=True)
    script = Script([5.0, 2.0, 3.0, OSError("disk full")])
    with pytest.raises(OSError, match="disk full"):
        model.train(4, callbacks=[script, saver], seed=0, enable_progress_bar=False)
    assert folders(tmp_path) == ["epoch=1", "exception", "last"]
    record = json.loads((tmp_path / "exception" / "model.json").read_text())
    assert record["training"]["checkpoint"]["error"] == "OSError: disk full"
    crashed = flat(SCVI.load(tmp_path / "exception", model.adata).module)
    assert not any(torch.equal(crashed, seen) for seen in script.seen)
    assert torch.equal(flat(model.module), script.seen[1])
    quiet = SaveCheckpoint(tmp_path / "no", monitor="script_loss", save_on_exception=False)
    with pytest.raises(OSError, match="disk full"):
        run(model, [OSError("disk full")], quiet)
    assert not (tmp_path / "no").exists()


def test_weights_that_are_not_finite_are_not_saved_at_an_exception(
    model: SCVI, tmp_path: Path
) -> None:
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    next(pl_module.module.parameters())[0] = float("nan")
                raise OSError("disk full")

    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss")
    script = Script([5.0, 2.0])
    with pytest.raises(OSError, match="disk full"):
        model.train(
            2, callbacks=[script, saver, Poison()], seed=0, on_nan="ignore",
            enable_progress_bar=False,
        )  # fmt: skip
    assert folders(tmp_path) == ["epoch=0"]
    assert torch.equal(flat(model.module), script.seen[0])


def test_a_model_that_cannot_be_saved_does_not_mask_the_exception(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise PermissionError("read only")

    class Full(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 1:
                monkeypatch.setattr(TrainingPlan, "save_model", fail)
                raise ZeroDivisionError("first")

    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss")
    script = Script([1.0, 2.0])
    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError, match="first"):
        model.train(2, callbacks=[script, saver, Full()], enable_progress_bar=False)
    assert "could not be saved: read only" in caplog.text
    assert torch.equal(flat(model.module), script.seen[0])


def test_a_checkpoint_that_cannot_be_read_again_is_not_called_the_best(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = TrainingPlan.save_model

    def cut(self: TrainingPlan, folder: Path, training: dict[str, Any] | None = None) -> None:
        write(self, folder, training)
        if self.epoch == 1:
            next(iter(folder.glob("*.safetensors"))).write_bytes(b"")

    monkeypatch.setattr(TrainingPlan, "save_model", cut)
    saver = SaveCheckpoint(tmp_path, "{epoch}", "script_loss")
    with caplog.at_level(logging.WARNING):
        script = run(model, [3.0, 2.0, 4.0], saver)
    assert "cannot be read again" in caplog.text
    assert (saver.best_epoch, saver.best_path) == (0, tmp_path / "epoch=0")
    assert list(index_of(tmp_path)) == ["epoch=0"]
    assert torch.equal(flat(model.module), script.seen[0])


def test_names_have_nothing_that_means_something_in_a_path(model: SCVI, tmp_path: Path) -> None:
    class Log(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.log("eval/ilisi", 1.0 + trainer.current_epoch)

    saver = SaveCheckpoint(tmp_path, monitor="eval/ilisi")
    model.train(2, callbacks=[Log(), saver], enable_progress_bar=False)
    assert folders(tmp_path) == ["epoch=1-eval_ilisi=2.0000"]
    assert safe_name("a/b\\c:d") == "a_b_c_d"
    bare = SaveCheckpoint(
        tmp_path / "bare", "{epoch}_{eval/ilisi:.0f}/x", "eval/ilisi", auto_insert_metric_name=False
    )
    model.train(1, callbacks=[Log(), bare], enable_progress_bar=False)
    assert folders(tmp_path / "bare") == ["2_1_x"]
    with pytest.raises(InvalidOptionError, match="other than 'last'"):
        SaveCheckpoint(filename="last")


def test_savers_of_one_run_do_not_share_a_folder(
    model: SCVI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    savers = [
        SaveCheckpoint(monitor="elbo_validation"),
        SaveCheckpoint(monitor="elbo_validation", save_top_k=2),
        SaveCheckpoint(tmp_path / "mine", monitor="elbo_train"),
        SaveCheckpoint(tmp_path / "mine", monitor="elbo_validation"),
    ]
    model.train(2, callbacks=savers, enable_progress_bar=False)
    assert len({saver.folder for saver in savers}) == 4
    assert savers[3].folder == tmp_path / "mine_2"
    for saver in savers:
        assert saver.folder is not None
        assert sorted(index_of(saver.folder)) == folders(saver.folder)


def test_checkpoints_of_earlier_runs_are_neither_deleted_nor_written_over(
    model: SCVI, tmp_path: Path
) -> None:
    first = run(model, [2.0, 1.0], SaveCheckpoint(tmp_path, "x", "script_loss", save_last=True))
    other = SCVI(model.adata, n_hidden=8, n_latent=2)
    saver = SaveCheckpoint(tmp_path, "x", "script_loss", save_last=True)
    script = run(other, [3.0, 2.0, 1.0], saver)
    index = index_of(tmp_path)
    assert folders(tmp_path) == sorted(index)
    assert len(index) == 4
    assert len({entry["run_id"] for entry in index.values()}) == 2
    old = [name for name in index if index[name]["run_id"] != index["last-v1"]["run_id"]]
    assert "last" in old
    for name in old:
        assert torch.equal(flat(SCVI.load(tmp_path / name, model.adata).module), first.seen[1])
    assert saver.best_path is not None
    again = SCVI.load(saver.best_path, model.adata)
    assert torch.equal(flat(again.module), script.seen[2])
    assert saver.last_model_path == str(tmp_path / "last-v1")


def test_a_name_that_is_taken_is_replaced_where_no_counter_is_wanted(
    model: SCVI, tmp_path: Path
) -> None:
    saver = SaveCheckpoint(tmp_path, "best", "script_loss", enable_version_counter=False)
    script = run(model, [3.0, 2.0, 4.0], saver)
    assert folders(tmp_path) == list(index_of(tmp_path)) == ["best"]
    loaded = SCVI.load(tmp_path / "best", model.adata)
    assert torch.equal(flat(loaded.module), script.seen[1])


@pytest.mark.parametrize("place", ["given", "default"])
@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_goes_on_keeps_the_same_models(
    model: SCVI, tmp_path: Path, place: str, every: int
) -> None:
    values = [5.0, 2.0, 3.0, 1.5, 2.5, 4.0, 0.5]

    def trained(root: Path, crash: int | None) -> tuple[SCVI, SaveCheckpoint]:
        torch.manual_seed(0)
        one = SCVI(model.adata, n_hidden=8, n_latent=2)
        saver = SaveCheckpoint(
            root / "mine" if place == "given" else None, "{epoch}", "script_loss",
            save_top_k=2, epochs=[1], save_last=True, save_on_exception=False,
        )  # fmt: skip
        script = Script(values if crash is None else [*values[:crash], OSError("power cut")])
        state = TrainingCheckpoint(every_n_epochs=every)
        state.dirpath = root / "run" / "state"
        kwargs: dict[str, Any] = {"run_dir": root / "run", "resume": "auto", "seed": 0}
        try:
            one.train(7, callbacks=[script, saver, state], enable_progress_bar=False, **kwargs)
        except OSError as error:
            assert str(error) == "power cut"
        return one, saver

    whole, first = trained(tmp_path / "a", None)
    trained(tmp_path / "b", 5)
    again, second = trained(tmp_path / "b", None)
    assert again.training_report is not None
    assert again.training_report.resumed_epoch == {1: 5, 3: 3}[every]
    assert torch.equal(flat(whole.module), flat(again.module))
    assert first.folder is not None and second.folder is not None
    assert (
        folders(first.folder) == folders(second.folder) == ["epoch=0", "epoch=3", "epoch=6", "last"]
    )
    drop = ("run_id",)
    left, right = (
        {n: {k: v for k, v in e.items() if k not in drop} for n, e in index_of(f).items()}
        for f in (first.folder, second.folder)
    )
    assert left == right
    for name in left:
        one, two = (SCVI.load(f / name, model.adata) for f in (first.folder, second.folder))
        assert torch.equal(flat(one.module), flat(two.module))
    assert (second.best_epoch, second.best_score) == (6, 0.5)


def test_the_state_is_plain_and_tells_settings_apart(model: SCVI, tmp_path: Path) -> None:
    saver = SaveCheckpoint(tmp_path / "x", monitor="script_loss", save_top_k=2)
    run(model, [3.0, float("nan"), 2.0], saver)
    torch.save(saver.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = SaveCheckpoint(tmp_path / "x", monitor="script_loss", save_top_k=2)
    assert other.state_key == saver.state_key
    other.models.begin("", tmp_path / "x", None)
    other.load_state_dict(state)
    assert other.top_k == saver.top_k
    assert [m.epoch for m in other.top_k] == [2, 0]
    different: list[dict[str, Any]] = [
        *({"mode": "max"}, {"save_top_k": 3}, {"epochs": [1]}, {"epochs": [2]}),
        *({"every_n_epochs": 2}, {"save_last": True}, {"filename": "{epoch}"}),
    ]
    keys = {SaveCheckpoint(monitor="script_loss", **kwargs).state_key for kwargs in different}
    assert len(keys) == len(different)


def test_parts_in_eval_mode_stay_so(model: SCVI, tmp_path: Path) -> None:
    class Hold(pl.Callback):
        def __init__(self) -> None:
            self.flags: list[list[bool]] = []

        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            pl_module.module.z_encoder.eval()
            self.flags.append([part.training for part in pl_module.modules()])

        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            self.flags.append([part.training for part in pl_module.modules()])

    hold = Hold()
    saver = SaveCheckpoint(tmp_path, monitor="elbo_train", save_last=True, every_n_epochs=1)
    model.train(3, callbacks=[hold, saver], enable_progress_bar=False)
    assert len(hold.flags) > 3
    assert all(flags == hold.flags[0] for flags in hold.flags)
    assert {True, False} == set(hold.flags[0])


def test_saving_changes_nothing_of_the_run(model: SCVI, tmp_path: Path) -> None:
    plain = Script([5.0, 2.0, 3.0])
    torch.manual_seed(0)
    one = SCVI(model.adata, n_hidden=8, n_latent=2)
    one.train(3, callbacks=plain, seed=0, enable_progress_bar=False)
    saver = SaveCheckpoint(tmp_path, monitor="script_loss", save_last=True, save_top_k=-1)
    script = run(model, [5.0, 2.0, 3.0], saver)
    assert all(torch.equal(a, b) for a, b in zip(plain.seen, script.seen, strict=True))


def test_stock_checkpoints_work_beside_it(model: SCVI, tmp_path: Path) -> None:
    stock = pl.callbacks.ModelCheckpoint(
        tmp_path / "stock", monitor="elbo_validation", save_top_k=2, save_last=True
    )
    saver = SaveCheckpoint(tmp_path / "mine", save_top_k=2)
    model.train(4, callbacks=[stock, saver], enable_progress_bar=False)
    assert saver.best_model_score is not None
    assert stock.best_model_score == saver.best_model_score
    assert sorted(map(float, stock.best_k_models.values())) == [m.score for m in saver.top_k]


def test_messages_only_when_asked(
    model: SCVI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="cellvae"):
        run(model, [5.0, 2.0], SaveCheckpoint(tmp_path, "{epoch}", "script_loss"))
        assert not caplog.records
        run(
            model,
            [5.0, 2.0, 3.0],
            SaveCheckpoint(tmp_path / "x", "{epoch}", "script_loss", verbose=True),
        )
    where = tmp_path / "x"
    assert [record.getMessage() for record in caplog.records] == [
        f"Epoch 2: script_loss is 5, saved in {where / 'epoch=2'}",
        f"Epoch 3: script_loss improved from 5 to 2, saved in {where / 'epoch=3'}",
        "Restored the best epoch, 3 (script_loss=2).",
    ]


def test_words_of_lightning_are_taken_or_refused_with_advice() -> None:
    saver = SaveCheckpoint(
        monitor=None,
        train_time_interval=datetime.timedelta(minutes=3),
        save_weights_only=True,
        save_on_train_epoch_end=True,
    )
    assert saver.trigger.every_n_minutes == 3
    for kwargs, match in (
        ({"save_weights_only": False}, "TrainingCheckpoint"),
        (
            {"every_n_minutes": 1, "train_time_interval": datetime.timedelta(1)},
            "Give every_n_minutes",
        ),
        ({"monitor": None}, "tells when to save"),
        ({"epochs": 3}, r"give epochs=\[10\]"),
        ({"epochs": [0]}, "the first epoch being 1"),
        ({"every_n_minutes": -1}, "every_n_minutes"),
    ):
        with pytest.raises(InvalidOptionError, match=match):
            SaveCheckpoint(**kwargs)  # type: ignore[arg-type]


def test_the_best_of_real_cells(shared_data: Path, tmp_path: Path) -> None:
    adata = read_h5ad(shared_data / "pbmc3k.h5ad")[::9, ::20].copy()
    SCVI.setup_anndata(adata)
    torch.manual_seed(0)
    model = SCVI(adata, n_hidden=16, n_latent=4)
    saver = SaveCheckpoint(tmp_path, save_top_k=3, save_last=True)
    model.train(8, callbacks=saver, plan_kwargs={"lr": 0.02}, enable_progress_bar=False)
    column = model.history["elbo_validation"]["elbo_validation"]
    best = column.sort_values().index[:3].tolist()
    assert [m.epoch for m in saver.top_k] == best
    assert [m.score for m in saver.top_k] == column.loc[best].tolist()
    assert saver.best_path is not None
    loaded = SCVI.load(saver.best_path, adata)
    assert torch.equal(flat(loaded.module), flat(model.module))
    last = SCVI.load(saver.last_model_path, adata)
    assert last.history.table.equals(model.history.table)
