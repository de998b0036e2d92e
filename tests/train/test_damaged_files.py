"""Files that are damaged, change or cannot be read: errors name them, and runs can go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import anndata
import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import cellvae
from cellvae.data import open_cells
from cellvae.data.batches import read_ahead
from cellvae.data.batches.run_order import RunOrder
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.storage.matrix_files.array_matrices import CSRMatrix
from cellvae.errors import InvalidDataError
from cellvae.model import SCVI
from cellvae.train.run import split_blocks

WORDS: dict[str, Any] = {"max_epochs": 4, "seed": 0, "batch_size": 32, "steps_per_block": 2}


@pytest.fixture
def cells(files: Path, monkeypatch: pytest.MonkeyPatch) -> CellFiles:
    """Cells in three files, of which buffers of 96 are read, in training and in questions."""
    order = RunOrder(run_length=5, buffer_size=96)
    monkeypatch.setattr(split_blocks, "plan_order", lambda *_, **__: order)
    monkeypatch.setattr(read_ahead, "max_buffer_size", lambda *_, **__: 96)
    cells = open_cells(files / "*.h5ad")
    SCVI.setup_anndata(cells)
    return cells


def new_model(cells: CellFiles) -> SCVI:
    cellvae.settings.seed = 0
    return SCVI(cells, n_hidden=16)


def readers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("cellvae-reader")]


def expect_no_reader() -> None:
    for thread in readers():
        thread.join(timeout=20)
        assert not thread.is_alive()


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_truncated_file(files: Path, kept: float) -> None:
    path = files / "part1.h5ad"
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(InvalidDataError, match=r"part1\.h5ad'; it cannot be read.*to its end"):
        open_cells(files / "*.h5ad")


def test_a_file_of_something_else(files: Path) -> None:
    with h5py.File(files / "part1.h5ad", "w") as file:
        file["matrix/data"] = np.arange(3)
    with pytest.raises(InvalidDataError, match=r"AnnData file in .*part1\.h5ad'; it has no 'obs'"):
        open_cells(files / "*.h5ad")


@pytest.mark.parametrize("array", ["data", "indices"])
@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_zarr_folder_that_was_not_copied_to_its_end(
    adata: anndata.AnnData, files: Path, array: str, damage: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the format of zarr, and of packages it imports
        pytest.importorskip("zarr", minversion="3")
        adata.write_zarr(files / "cells.zarr", chunks=(700,))
    folder = files / "cells.zarr" / "X" / array
    chunk = next(path for path in (folder / "0", folder / "c" / "0") if path.is_file())
    shutil.copytree(files / "cells.zarr", files / "whole.zarr")
    assert open_cells(files / "whole.zarr").to_memory().X.nnz == adata.X.nnz
    if damage == "removed":
        chunk.unlink()
        message = r"all chunks of X of '.*cells\.zarr'; 1 are missing"
    else:
        os.truncate(chunk, 10)
        message = r"of X of '.*cells\.zarr'; got an error"
    with pytest.raises(InvalidDataError, match=message):
        open_cells(files / "cells.zarr").to_memory()


def fail_after(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Let the disk fail after `n` reads of runs."""
    read_runs, n_reads = CSRMatrix.read_runs, []

    def failing(self: CSRMatrix, runs: Any) -> Any:
        n_reads.append(1)
        if len(n_reads) > n:
            assert threading.current_thread().name.startswith("cellvae-reader")
            raise OSError(5, "Input/output error")
        return read_runs(self, runs)

    monkeypatch.setattr(CSRMatrix, "read_runs", failing)


@pytest.mark.trains
def test_a_reader_that_fails_ends_the_run_which_can_be_resumed(
    cells: CellFiles, tmp_path: Path
) -> None:
    whole = new_model(cells)
    whole.train(**WORDS)
    kept = tmp_path / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fail_after(monkeypatch, 25)
        failed = new_model(cells)
        with pytest.raises(InvalidDataError, match=r"of X of '.*part\d\.h5ad'; got an error.*5"):
            failed.train(**WORDS, run_dir=kept, resume="auto")
    expect_no_reader()
    n_done = len(failed.history["elbo_train"])
    assert 1 <= n_done < 4
    resumed = new_model(cells)
    resumed.train(**WORDS, run_dir=kept, resume="auto")
    assert resumed.training_report.resumed_epoch == n_done
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


def test_a_reader_that_fails_ends_a_question(
    cells: CellFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(cells)
    model.is_trained = True
    fail_after(monkeypatch, 2)
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidDataError, match=r"of X of '.*part\d\.h5ad'; got an error"):
        model.get_latent_representation(out=tmp_path / "out" / "x.h5ad", batch_size=32)
    assert not any((tmp_path / "out").iterdir())
    expect_no_reader()


def test_a_file_that_is_replaced_ends_a_question(cells: CellFiles, files: Path) -> None:
    model = new_model(cells)
    model.is_trained = True
    (files / "part0.h5ad").replace(files / "part1.h5ad")
    with pytest.raises(InvalidDataError, match=r"part1\.h5ad' as it was.*another file|part0\.h5ad"):
        model.get_elbo()


class Interrupt(pl.Callback):
    """Interrupts the second epoch while a buffer is being read."""

    supports_blocks = True

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            assert readers()
            raise self.error


@pytest.mark.trains
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_read_after_a_run_was_interrupted(
    cells: CellFiles, error: type[BaseException]
) -> None:
    model = new_model(cells)
    with contextlib.suppress(error):
        model.train(**WORDS, callbacks=[Interrupt(error)])
    assert len(model.history["elbo_train"]) == 1
    expect_no_reader()


def test_nothing_is_read_after_a_question_was_interrupted(
    cells: CellFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(cells)
    model.is_trained = True
    n_batches = []
    encode = type(model.module).encode

    def interrupted(*args: Any) -> Any:
        n_batches.append(1)
        if len(n_batches) == 2:
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(type(model.module), "encode", interrupted)
    # The traceback keeps all variables, as a notebook does.
    with pytest.raises(KeyboardInterrupt):
        model.get_latent_representation(batch_size=32)
    expect_no_reader()
