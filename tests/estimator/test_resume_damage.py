"""A damaged state is never resumed from; the one before it is. Other files say what to do."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.errors import FileFormatError, InvalidOptionError, TrainingWarning
from cellvae.model import SCVI
from cellvae.train import SaveCheckpoint, TrainingCheckpoint

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {
    "max_epochs": 6,
    "batch_size": 16,
    "seed": 3,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}


class Crash(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 4:
            raise OSError("disk full")


@pytest.fixture
def whole(adata: AnnData, make: Callable[..., SCVI]) -> SCVI:
    model = make(adata)
    model.train(**WORDS)
    return model


@pytest.fixture
def folder(adata: AnnData, make: Callable[..., SCVI], tmp_path: Path) -> Path:
    """Folder of a run that crashed in epoch 4, with states after 3 and 4 epochs."""
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=tmp_path / "run", callbacks=Crash())
    states = sorted((tmp_path / "run" / "state").iterdir())
    assert [path.name for path in states] == ["epoch=000003.state", "epoch=000004.state"]
    return tmp_path / "run"


def assert_same(model: SCVI, other: SCVI) -> None:
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, other.module.state_dict()[name]), name
    pd.testing.assert_frame_equal(model.history.table, other.history.table, check_exact=True)


def flip(path: Path, place: int = 1000) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty])
@pytest.mark.parametrize("resume", ["auto", "folder"])
def test_the_state_before_a_damaged_one_is_taken_and_said_so(
    adata: AnnData,
    make: Callable[..., SCVI],
    whole: SCVI,
    folder: Path,
    damage: Callable[[Path], None],
    resume: str,
) -> None:
    damage(folder / "state" / "epoch=000004.state")
    model = make(adata)
    told = r"epoch=000004\.state; .* Resuming from the state before it, .*epoch=000003\.state"
    with pytest.warns(TrainingWarning, match=told):
        model.train(**WORDS, run_dir=folder, resume="auto" if resume == "auto" else folder)
    assert model.training_report is not None
    assert model.training_report.resumed_epoch == 3
    assert_same(whole, model)
    assert not (folder / "state").exists()


def test_a_file_that_was_named_is_refused_with_the_state_before_it(
    adata: AnnData, make: Callable[..., SCVI], whole: SCVI, folder: Path
) -> None:
    path = folder / "state" / "epoch=000004.state"
    flip(path)
    before = folder / "state" / "epoch=000003.state"
    with pytest.raises(FileFormatError, match=f"{path}; .* The state before it is {before}"):
        make(adata).train(**WORDS, resume=path)
    model = make(adata)
    model.train(**WORDS, resume=before)
    assert_same(whole, model)


def test_nothing_is_resumed_where_all_states_are_damaged(
    adata: AnnData, make: Callable[..., SCVI], folder: Path
) -> None:
    for path in (folder / "state").iterdir():
        flip(path)
    model = make(adata)
    with pytest.raises(FileFormatError, match=r"epoch=000004.state; .*So are 1 earlier state"):
        model.train(**WORDS, run_dir=folder, resume="auto")
    assert not model.is_trained
    assert len([*(folder / "state").iterdir()]) == 2
    model.train(**WORDS, run_dir=folder)
    assert model.history.epochs == [*range(6)]


def test_later_states_go_when_a_run_resumes_from_an_earlier_one(
    adata: AnnData, make: Callable[..., SCVI], folder: Path
) -> None:
    class Early(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 2:
                raise OSError("disk full")

    states = folder / "state"
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=folder.with_name("early"), callbacks=Early())
    shutil.copy(folder.with_name("early") / "state" / "epoch=000001.state", states)
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(
            **WORDS,
            run_dir=folder,
            resume=states / "epoch=000001.state",
            callbacks=[Early(), TrainingCheckpoint(states, keep_last=5)],
        )
    assert sorted(p.name for p in states.iterdir()) == ["epoch=000001.state", "epoch=000002.state"]


def test_ckpt_path_is_resume(
    adata: AnnData, make: Callable[..., SCVI], whole: SCVI, folder: Path
) -> None:
    model = make(adata)
    model.train(**WORDS, ckpt_path=str(folder / "state" / "epoch=000003.state"))
    assert_same(whole, model)
    model = make(adata)
    model.train(**WORDS, run_dir=folder.with_name("none"), ckpt_path="last")
    assert model.training_report is not None
    assert model.training_report.resumed_epoch is None
    with pytest.raises(InvalidOptionError, match="which has none"):
        make(adata).train(**WORDS, ckpt_path=folder)
    for kwargs, text in (
        ({"ckpt_path": "best"}, "a folder with one, or 'last'; got 'best'"),
        ({"ckpt_path": 3}, "or 'last'; got 3"),
        ({"ckpt_path": folder, "resume": "auto"}, "mean the same; got both"),
        ({"ckpt_path": folder / "nothing.ckpt"}, "which is not there. Check the path"),
    ):
        with pytest.raises(InvalidOptionError, match=text):
            make(adata).train(**WORDS, **kwargs)


def test_a_checkpoint_of_lightning_says_what_to_do(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    checkpoint = {"pytorch-lightning_version": "2.6.0", "state_dict": {}, "epoch": 3}
    for name in ("last.ckpt", "last.bin"):
        path = tmp_path / name
        torch.save(checkpoint, path)
        assert zipfile.is_zipfile(path)
        with pytest.raises(InvalidOptionError, match=r"checkpoint of Lightning.*cellvae\.load"):
            make(adata).train(**WORDS, ckpt_path=path)
    with pytest.raises(InvalidOptionError, match="checkpoint of Lightning"):
        make(adata).train(**WORDS, ckpt_path=tmp_path)


@pytest.mark.parametrize("format", ["cellvae", "scvi-tools"])
def test_a_saved_model_says_how_to_train_it_further(
    adata: AnnData, make: Callable[..., SCVI], whole: SCVI, tmp_path: Path, format: Any
) -> None:
    model = tmp_path / "checkpoints" / "epoch=3"
    whole.save(model, format=format)
    file = model / ("model.pt" if format == "scvi-tools" else "weights.safetensors")
    for path in (model, model.parent, file):
        with pytest.raises(InvalidOptionError, match=f"{format} saved.*load.'{model}', adata"):
            make(adata).train(**WORDS, ckpt_path=path)
    loaded = SCVI.load(model, adata)
    loaded.train(**WORDS)
    assert loaded.is_trained


def test_the_folder_of_savecheckpoint_says_which_model_to_load(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    saver = SaveCheckpoint(tmp_path / "best", monitor="elbo_train")
    make(adata).train(**WORDS, callbacks=saver)
    with pytest.raises(InvalidOptionError, match="which holds a model that cellvae saved"):
        make(adata).train(**WORDS, ckpt_path=tmp_path / "best")
