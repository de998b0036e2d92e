"""A run that was cut off goes on bit by bit, or says why it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.errors import FileFormatError, InvalidOptionError, ResumeError, UnsafeFileError
from cellvae.model import SCVI
from cellvae.persistence.training_state import write_state
from cellvae.train import EarlyStopping, SaveCheckpoint

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {
    "max_epochs": 7,
    "batch_size": 16,
    "seed": 3,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}


class Crash(pl.Callback):
    """Raises in the second batch of an epoch; draws from NumPy, as a user's callback may."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch
        self.drawn: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.drawn.append(float(np.random.random()))
        pl_module.log("drawn", self.drawn[-1], batch_size=1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise OSError("disk full")


def weights(model: SCVI) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.module.state_dict().values()])


VARIANTS = {
    "plain": {},
    "validation": {"check_val_every_n_epoch": 2},
    "plateau": {
        "plan_kwargs": {
            "reduce_lr_on_plateau": True,
            "lr_patience": 0,
            "lr_threshold": 50.0,
            "lr_scheduler_metric": "elbo_train",
        }
    },
    "plateau of validation": {
        "check_val_every_n_epoch": 2,
        "plan_kwargs": {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 50.0},
    },
    "warm-up by steps": {"plan_kwargs": {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": 20}},
    "accumulated": {"accumulate_grad_batches": 2},
    "stopping": {"early_stopping": True, "early_stopping_patience": 2},
    "clipped": {"gradient_clip_val": 1.0, "plan_kwargs": {"optimizer": "AdamW"}},
}


@pytest.mark.parametrize("kwargs", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("resume", ["auto", "path"])
def test_a_run_that_crashed_ends_as_one_that_did_not(
    adata: AnnData,
    make: Callable[..., SCVI],
    tmp_path: Path,
    kwargs: dict[str, Any],
    resume: str,
) -> None:
    def run(epoch: int | None, **more: Any) -> tuple[SCVI, Crash]:
        model, crash = make(adata), Crash(epoch)
        np.random.seed(5)
        saver = SaveCheckpoint(tmp_path / f"best-{epoch}", monitor="elbo_train")
        try:
            model.train(**WORDS, **kwargs, callbacks=[crash, saver], **more)
        except OSError as error:
            assert str(error) == "disk full"
        return model, crash

    whole, first = run(None)
    broken, _ = run(3, resume="auto", run_dir=tmp_path / "run")
    assert broken.training_report is not None
    assert broken.training_report.status == "failed"
    where: Any = "auto" if resume == "auto" else tmp_path / "run" / "state"
    np.random.seed(99)
    again, second = run(None, resume=where, run_dir=tmp_path / "run")
    assert torch.equal(weights(whole), weights(again))
    pd.testing.assert_frame_equal(whole.history.table, again.history.table, check_exact=True)
    assert second.drawn == first.drawn[3:]
    assert whole.training_report is not None and again.training_report is not None
    assert again.training_report.resumed_epoch == 3
    assert again.training_report.best_epoch == whole.training_report.best_epoch
    assert again.training_report.epochs == whole.training_report.epochs
    assert np.array_equal(whole.train_indices, again.train_indices)
    assert not (tmp_path / "run" / "state").exists()


def test_a_changed_patience_and_more_epochs_are_honoured(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(
            **WORDS,
            run_dir=tmp_path,
            callbacks=[Crash(3), EarlyStopping("elbo_train", patience=40)],
        )
    model, stop = make(adata), EarlyStopping("elbo_train", patience=1, min_delta=1e9)
    model.train(**{**WORDS, "max_epochs": 20}, run_dir=tmp_path, resume="auto", callbacks=stop)
    assert stop.patience == 1
    assert len(model.history.epochs) < 8
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=tmp_path / "2", callbacks=Crash(3))
    model = make(adata)
    model.train(**{**WORDS, "max_epochs": 9}, run_dir=tmp_path / "2", resume="auto")
    assert model.history.epochs == [*range(9)]


def test_lightnings_own_early_stopping_keeps_the_patience_of_now(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    def stock(patience: int) -> pl.callbacks.EarlyStopping:
        return pl.callbacks.EarlyStopping("elbo_train", patience=patience, min_delta=1e9)

    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=tmp_path, callbacks=[Crash(3), stock(50)])
    model = make(adata)
    model.train(**WORDS, run_dir=tmp_path, resume="auto", callbacks=stock(4))
    assert model.history.epochs == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("config", "kwargs", "change", "expected"),
    [
        ({"n_latent": 4}, {}, None, r"config.n_latent: 3 in the saved run, 4 now"),
        ({}, {"batch_size": 20}, None, r"training.loader.batch_size: 16 .*20 now"),
        ({}, {"plan_kwargs": {"lr": 0.01}}, None, r"training.optimizer.lr: 0.001 .*0.01 now"),
        ({}, {"seed": 4}, None, r"seed of the run to be resumed, 3; got 4"),
        ({}, {"train_size": 0.5}, None, r"split of the run to be resumed"),
        ({}, {}, "genes", r"genes: 12 in the saved run, 11 now; missing 'gene11'"),
        ({}, {}, "cells", r"cells.names"),
        ({}, {}, "counts", r"counts, read from X: 70 of 70 cells differ"),
        ({}, {}, "batch", r"categories"),
    ],
)
def test_another_model_data_or_options_are_refused_with_what_differs(
    adata: AnnData,
    make: Callable[..., SCVI],
    tmp_path: Path,
    config: dict[str, Any],
    kwargs: dict[str, Any],
    change: str | None,
    expected: str,
) -> None:
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=tmp_path, callbacks=Crash(2))
    if change == "genes":
        adata = adata[:, :-1].copy()
    elif change == "cells":
        adata = adata[::-1].copy()
    elif change == "counts":
        adata.X = adata.X * 2
    elif change == "batch":
        adata.obs["batch"] = adata.obs["batch"].astype(str) + "x"
    if change is not None:
        SCVI.setup_anndata(adata, batch_key="batch")
    model = make(adata, **config)
    before = weights(model)
    with pytest.raises(ResumeError, match=expected):
        model.train(**{**WORDS, **kwargs}, run_dir=tmp_path, resume="auto")
    assert torch.equal(before, weights(model))
    assert not model.is_trained


def test_a_state_that_is_not_there_or_not_ours_is_refused(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    with pytest.raises(InvalidOptionError, match="which is not there"):
        make(adata).train(**WORDS, resume=tmp_path / "nothing.state")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidOptionError, match="which has none"):
        make(adata).train(**WORDS, resume=tmp_path / "empty")

    class Planted:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "epoch=000002.state"
    torch.save({"format": 1, "module": Planted()}, path)
    with pytest.raises(FileFormatError, match="no checksum"):
        make(adata).train(**WORDS, resume=tmp_path)
    write_state(path, {"module": Planted()})
    write_state(tmp_path / "epoch=000001.state", {})
    with pytest.raises(UnsafeFileError, match="more than"):
        make(adata).train(**WORDS, resume=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_state_loads_with_weights_only(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=tmp_path, callbacks=[Crash(4)], early_stopping=True)
    paths = sorted((tmp_path / "state").iterdir())
    assert [path.name for path in paths] == ["epoch=000003.state", "epoch=000004.state"]
    state = torch.load(paths[1], weights_only=True)
    assert state["n_epochs"] == 4
    assert state["history"]["epochs"] == [0, 1, 2, 3]


def test_a_new_run_in_the_same_folder_forgets_the_old_one(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    for epoch in (5, 2):
        with pytest.raises(OSError, match="disk full"):
            make(adata).train(**WORDS, run_dir=tmp_path, callbacks=Crash(epoch))
        # As a process leaves it that is killed while it writes.
        (tmp_path / "state" / ".epoch=000009.state-abcd").touch()
    with pytest.raises(OSError, match="disk full"):
        make(adata).train(**WORDS, run_dir=tmp_path, callbacks=Crash(2))
    names = sorted(p.name for p in (tmp_path / "state").iterdir())
    assert names == ["epoch=000001.state", "epoch=000002.state"]


SCRIPT = textwrap.dedent("""
    import sys, os, signal, time
    import numpy as np, torch, anndata, cellvae
    from lightning.pytorch import Callback
    torch.set_num_threads(1)
    data, out, die = sys.argv[1], sys.argv[2], sys.argv[3]

    class Die(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if die != "never" and trainer.current_epoch == 3 and batch_idx == 1:
                os.kill(os.getpid(), getattr(signal, die))

    adata = anndata.read_h5ad(data)
    cellvae.model.SCVI.setup_anndata(adata, batch_key="batch")
    torch.manual_seed(0)
    model = cellvae.model.SCVI(adata, n_hidden=16, n_latent=4)
    model.train(
        6, batch_size=128, seed=1, accelerator="cpu", enable_progress_bar=False,
        early_stopping=True, run_dir=out, resume="auto", callbacks=[Die()],
    )
    np.save(out + "/latent.npy", model.get_latent_representation())
    model.history.table.to_csv(out + "/history.csv")
    print(model.training_report.status, model.training_report.resumed_epoch)
""")


@pytest.mark.slow
def test_a_killed_script_that_is_started_again_ends_as_if_nothing_had_been(
    shared_data: Path, tmp_path: Path
) -> None:
    import anndata

    cells = anndata.read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")
    cells[:: len(cells) // 400].copy().write_h5ad(tmp_path / "cells.h5ad")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(name: str, die: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / name).mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, str(script), str(tmp_path / "cells.h5ad"), str(tmp_path / name), die],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    whole = start("whole", "never")
    assert whole.returncode == 0, whole.stderr[-2000:]
    # The second resumes from the state of the first, and ends in the same epoch.
    for sign, code in (("SIGKILL", -signal.SIGKILL), ("SIGTERM", 128 + signal.SIGTERM)):
        cut = start("cut", sign)
        assert cut.returncode == code, cut.stderr[-2000:]
        assert not (tmp_path / "cut" / "latent.npy").exists()
    again = start("cut", "never")
    assert again.stdout.split() == ["completed", "3"], again.stderr[-2000:]
    for name in ("latent.npy", "history.csv"):
        found, expected = (tmp_path / run / name for run in ("cut", "whole"))
        assert found.read_bytes() == expected.read_bytes(), name


CTRL_C = textwrap.dedent("""
    import sys, time
    import numpy as np, torch, cellvae
    from lightning.pytorch import Callback
    torch.set_num_threads(1)

    class Slow(Callback):
        def on_train_batch_end(self, *arguments):
            print("batch", flush=True)
            time.sleep(0.3)

    adata = cellvae.data.synthetic_iid()
    cellvae.model.SCVI.setup_anndata(adata)
    model = cellvae.model.SCVI(adata, n_hidden=8)
    try:
        model.train(50, batch_size=64, accelerator="cpu", enable_progress_bar=False,
                    callbacks=[Slow()], on_interrupt=sys.argv[1])
        print("returned")
    except KeyboardInterrupt:
        print("raised")
    print(model.training_report.status, model.is_trained,
          np.isfinite(model.get_latent_representation()).all())
""")


@pytest.mark.parametrize(
    ("word", "presses", "ends"),
    [("stop", 1, "returned"), ("raise", 1, "raised"), ("stop", 2, "raised")],
)
def test_ctrl_c_once_ends_after_the_batch_and_twice_aborts(
    tmp_path: Path, word: str, presses: int, ends: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(CTRL_C)
    process = subprocess.Popen(
        [sys.executable, str(script), word], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines == ["batch\n"] * 3
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error[-2000:]
    rest = [line for line in out.splitlines() if line != "batch"]
    assert rest == [ends, "interrupted True True"]
    assert out.count("batch\n") <= 1
    assert "Once more aborts it" in error
