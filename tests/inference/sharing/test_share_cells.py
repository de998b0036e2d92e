"""Cells are shared between processes and devices, with the results of one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from cellvae.core.platform import process_group
from cellvae.core.seeds import draw_seed
from cellvae.errors import InvalidOptionError
from cellvae.inference import share_cells
from cellvae.inference.cell_pass import CellPass
from cellvae.model import SCVI

SCRIPT = Path(__file__).with_name("ask_in_processes.py")
GROUPS = {"alone": 1, "devices": 1, "two": 2, "three": 3, "fail": 2}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Any]:
    """What each process of each group has got; all of them come from one start of Python."""
    folder = tmp_path_factory.mktemp("sharing")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        capture_output=True, text=True, check=False, timeout=900, env=environment, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]
    return {
        (name, rank): pickle.loads((folder / name / f"seen-{rank}.pickle").read_bytes())
        for name, size in GROUPS.items()
        for rank in range(size)
    }


@pytest.fixture
def model(adata: AnnData) -> SCVI:
    """Model that answers as a trained one does."""
    SCVI.setup_anndata(adata, batch_key="batch")
    made = SCVI(adata, n_hidden=8)
    made.is_trained = True
    return made


def assert_same(found: Any, expected: Any, where: str) -> None:
    """Compare answers to the bit."""
    if isinstance(expected, dict):
        assert [*found] == [*expected], where
        for name in expected:
            assert_same(found[name], expected[name], f"{where}, {name}")
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, where)
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=where)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=where)
        assert np.asarray(found).dtype == np.asarray(expected).dtype


@pytest.mark.slow
@pytest.mark.parametrize(
    "process", [("devices", 0), ("two", 0), ("two", 1), ("three", 0), ("three", 1), ("three", 2)]
)
def test_answers_are_those_of_one_process(seen: Any, process: tuple[str, int]) -> None:
    found, expected = (
        {**seen[key], "files": seen[key]["files"]["found"]} for key in (process, ("alone", 0))
    )
    assert_same(found, expected, str(process))


@pytest.mark.slow
def test_samples_of_one_context_differ(seen: Any) -> None:
    found = seen["alone", 0]["scvi"]
    assert (found["drawn"] != found["drawn again"]).all()


@pytest.mark.slow
def test_each_process_reads_its_stretch_of_the_files(seen: Any) -> None:
    # 280 cells in nine batches of 32, the last of 24.
    assert seen["alone", 0]["files"]["n_read"] == 280
    assert [seen["two", rank]["files"]["n_read"] for rank in range(2)] == [4 * 32, 4 * 32 + 24]
    assert [seen["three", rank]["files"]["n_read"] for rank in range(3)] == [96, 96, 64 + 24]


@pytest.mark.slow
def test_the_first_process_writes_pieces_of_all_and_the_others_get_none(seen: Any) -> None:
    pieces = [seen["three", rank]["files"]["pieces"] for rank in range(3)]
    assert pieces == [[32] * 8 + [24], [], []]


@pytest.mark.slow
def test_an_error_is_raised_in_all_processes(seen: Any) -> None:
    first, second = seen["fail", 0], seen["fail", 1]
    assert second["in a batch"] == "ValueError: no such luck"
    assert first["in a batch"] == "ProcessError: Process 1 of 2 failed: ValueError: no such luck"
    assert second["Ctrl-C"] == "KeyboardInterrupt: "
    assert first["Ctrl-C"] == "ProcessError: Process 1 of 2 failed: KeyboardInterrupt"
    assert first["after them"] == second["after them"] == "fine: (300, 10)"
    assert first["full disk"] == "OutputError: full"
    assert second["full disk"] == "ProcessError: Process 0 of 2 failed: OutputError: full"


@pytest.mark.slow
def test_processes_that_ask_different_things_are_told(seen: Any) -> None:
    first, second = seen["fail", 0], seen["fail", 1]
    assert first["other cells"] == second["other cells"]
    assert "same choice of cells" in first["other cells"]
    assert first["other question"] == second["other question"]
    assert "get_elbo in the first and get_latent_representation" in first["other question"]
    assert second["before a question"].startswith("InvalidOptionError: Expected a file")
    assert first["before a question"] == second["the end"]
    assert "same steps in all processes; they are at: a question, the end" in second["the end"]


@pytest.mark.slow
def test_a_process_that_ends_ends_the_wait_of_the_others(seen: Any) -> None:
    assert "another process has ended" in seen["fail", 0]["killed"]
    assert "killed" not in seen["fail", 1]


def test_means_are_those_of_a_question_without_sharing(model: SCVI) -> None:
    expected = model.get_latent_representation(batch_size=16)
    with share_cells():
        np.testing.assert_array_equal(model.get_latent_representation(batch_size=16), expected)


def test_random_numbers_go_on_as_after_one_draw(model: SCVI) -> None:
    torch.manual_seed(3)
    draw_seed()
    expected = torch.rand(())
    torch.manual_seed(3)
    with share_cells():
        model.get_elbo()
    assert torch.rand(()) == expected


def test_stretches_are_whole_batches() -> None:
    cells = CellPass(range(0), torch.arange(100), 16, torch.device("cpu"))  # type: ignore[arg-type]
    stretches = [cells.stretch(number, 3) for number in range(3)]
    assert torch.equal(torch.cat([part.cells for part in stretches]), cells.cells)
    assert [part.first for part in stretches] == [0, 32, 64]
    assert [len(cells.stretch(number, 9).cells) for number in range(9)].count(0) == 2


def test_what_cannot_be_shared() -> None:
    with share_cells(), pytest.raises(InvalidOptionError, match="one share_cells"), share_cells():
        pass
    many = torch.cuda.device_count() + 1
    with pytest.raises(InvalidOptionError, match="Expected devices of this computer"):
        share_cells(many).__enter__()
    with pytest.raises(InvalidOptionError, match="at least one device"):
        share_cells([]).__enter__()


def test_an_error_on_a_device_is_raised(model: SCVI, monkeypatch: pytest.MonkeyPatch) -> None:
    with share_cells(["cpu", "cpu"]), pytest.raises(InvalidOptionError, match="at least 1"):
        model.get_latent_representation(batch_size=0)

    def fail(*_: Any) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(type(model.module), "encode", fail)
    with share_cells(["cpu", "cpu"]), pytest.raises(ValueError, match="no such luck"):
        model.get_latent_representation(batch_size=8)


def test_address_of_the_first_process_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "1234567")
    assert process_group.slurm_address() == "127.0.0.1:19567"
    monkeypatch.setenv("SLURM_NNODES", "2")
    with pytest.raises(InvalidOptionError, match="Expected MASTER_ADDR"):
        process_group.slurm_address()
    monkeypatch.setenv("MASTER_ADDR", "node7")
    monkeypatch.setenv("MASTER_PORT", "1234")
    assert process_group.slurm_address() == "node7:1234"
