"""A run resumes with the cells that it had, however they are stored, and with no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.errors import ResumeError
from cellvae.model import SCANVI, SCVI

pytestmark = pytest.mark.trains

WORDS: dict[str, Any] = {
    "max_epochs": 3,
    "batch_size": 32,
    "seed": 3,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}
SETUP: dict[str, Any] = {
    "batch_key": "batch",
    "labels_key": "label",
    "size_factor_key": "size",
    "categorical_covariate_keys": ["donor", "site"],
    "continuous_covariate_keys": ["age", "depth"],
}


class Crash(pl.Callback):
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise OSError("disk full")


@pytest.fixture
def adata(adata: AnnData) -> AnnData:
    adata.obs["site"] = np.array(["here", "there"])[(np.arange(len(adata)) // 5) % 2]
    adata.obs["depth"] = np.arange(len(adata), dtype=np.int64)
    adata.layers["raw"] = adata.X.copy()
    return adata


def crash(model: Any, folder: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        model.train(**WORDS, run_dir=folder, callbacks=Crash())


def swapped(column: str, n: int) -> Callable[[AnnData], None]:
    """Change of n cells of a column: each gets the value of a cell with another one."""

    def change(adata: AnnData) -> None:
        values = adata.obs[column].to_numpy().copy()
        others = [next(v for v in values if v != old) for old in values[-n:]]
        values[-n:] = others
        adata.obs[column] = pd.Categorical(values) if column == "batch" else values

    return change


def one_count(adata: AnnData) -> None:
    adata.layers["raw"][7, 3] += 1


CHANGES: dict[str, tuple[Callable[[AnnData], None], str]] = {
    "batch": (
        swapped("batch", 4),
        r"batch, read from obs\['batch'\]: 4 of 70 cells differ, the first is 'cell66' "
        r"\('b0' in the saved run, 'b1' now\)",
    ),
    "label": (swapped("label", 1), r"labels, .*obs\['label'\]: 1 of 70 .*'cell69' \('y' .*'x' now"),
    "donor": (swapped("donor", 3), r"categorical, read from obs\['donor'\]: 3 of 70 .*'cell67'"),
    "site": (swapped("site", 2), r"categorical, read from obs\['site'\]: 2 of 70 cells differ"),
    "age": (swapped("age", 5), r"continuous, read from obs\['age'\]: 5 of 70 .*'cell65' \(-?\d"),
    "depth": (swapped("depth", 1), r"continuous, .*obs\['depth'\]: 1 of 70 .*\(69 in .*, 0 now\)"),
    "size": (swapped("size", 2), r"size_factor, read from obs\['size'\]: 2 of 70 cells differ"),
    "counts": (one_count, r"counts, read from layers\['raw'\]: 1 of 70 cells .*'cell7'\n"),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_a_column_with_other_values_is_named_with_the_number_of_cells(
    adata: AnnData,
    make: Callable[..., SCVI],
    tmp_path: Path,
    change: Callable[[AnnData], None],
    expected: str,
) -> None:
    setup = SETUP | {"layer": "raw"}
    crash(make(adata, setup), tmp_path)
    before = adata.copy()
    change(adata)
    with pytest.raises(ResumeError, match=expected) as caught:
        make(adata, setup).train(**WORDS, run_dir=tmp_path, resume="auto")
    # One line, and none about the others.
    assert len(str(caught.value).splitlines()) == 3
    model = make(before, setup)
    model.train(**WORDS, run_dir=tmp_path, resume="auto")
    assert model.training_report is not None
    assert model.training_report.resumed_epoch == 2


def test_all_columns_that_differ_are_named_also_where_categories_do(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    crash(make(adata, SETUP), tmp_path)
    adata.obs["batch"] = adata.obs["batch"].astype(str).replace("b1", "b3")
    adata.obs["age"] += 1
    with pytest.raises(ResumeError) as caught:
        make(adata, SETUP).train(**WORDS, run_dir=tmp_path, resume="auto")
    text = str(caught.value)
    n = int((np.arange(70) % 3 == 1).sum())
    assert f"obs['batch']: {n} of 70 cells differ, the first is 'cell1' ('b1' in the" in text
    assert "data.fields.batch.categories" in text
    assert "obs['age']: 70 of 70 cells differ" in text


def test_the_same_values_in_columns_of_other_types_resume(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    crash(make(adata, SETUP), tmp_path)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    adata.obs["site"] = adata.obs["site"].astype("category")
    adata.obs["depth"] = adata.obs["depth"].astype(np.float64)
    adata.obs["size"] = adata.obs["size"].astype(np.float32)
    adata.obs["unread"] = "other"
    model = make(adata, SETUP)
    model.train(**WORDS, run_dir=tmp_path, resume="auto")
    assert model.training_report is not None
    assert model.training_report.resumed_epoch == 2


STORED: dict[str, Callable[[Any], Any]] = {
    "int64": lambda v: v.astype(np.int64),
    "float64": lambda v: v.astype(np.float64),
    "CSR": lambda v: sparse.csr_matrix(v),
    "CSC of int32": lambda v: sparse.csc_matrix(v.astype(np.int32)),
}


@pytest.mark.parametrize("store", STORED.values(), ids=STORED.keys())
def test_the_same_counts_resume_however_they_are_stored(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path, store: Callable[[Any], Any]
) -> None:
    dense = adata.X.copy()
    crash(make(adata), tmp_path)
    adata.X = store(dense)
    model = make(adata)
    model.train(**WORDS, run_dir=tmp_path, resume="auto")
    assert model.training_report is not None
    assert model.training_report.resumed_epoch == 2
    adata.X = dense
    whole = make(adata)
    whole.train(**WORDS)
    for name, tensor in whole.module.state_dict().items():
        torch.testing.assert_close(tensor, model.module.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_counts_on_disk_resume_and_are_compared(
    adata: AnnData, make: Callable[..., SCVI], tmp_path: Path
) -> None:
    del adata.layers["raw"]
    crash(make(adata), tmp_path)
    for change in (0, 1):
        adata.X[5, 2] += change
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        model = make(backed)
        if change:
            with pytest.raises(ResumeError, match="counts, read from X: 1 of 70 .*'cell5'"):
                model.train(**WORDS, run_dir=tmp_path, resume="auto")
        else:
            folder = tmp_path / "copy"
            folder.mkdir()
            for path in (tmp_path / "state").iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            model.train(**WORDS, resume=folder)
            assert model.history.epochs == [0, 1, 2]
        backed.file.close()


def test_labels_of_scanvi_are_compared_with_those_that_are_not_known(
    adata: AnnData, tmp_path: Path
) -> None:
    def make(adata: AnnData) -> SCANVI:
        SCANVI.setup_anndata(adata, "label", "?", batch_key="batch")
        torch.manual_seed(0)
        return SCANVI(adata, n_hidden=8, n_latent=3)

    adata.obs.loc[adata.obs_names[::3], "label"] = "?"
    crash(make(adata), tmp_path)
    labels = adata.obs["label"].copy()
    adata.obs.loc[["cell1", "cell2"], "label"] = "?"
    with pytest.raises(ResumeError, match=r"obs\['label'\]: 2 of 70 .*'cell1' \('y' .*'\?' now"):
        make(adata).train(**WORDS, run_dir=tmp_path, resume="auto")
    adata.obs["label"] = labels
    model = make(adata)
    # Labels are read from the AnnData when a run begins.
    adata.obs.loc[["cell4"], "label"] = "?"
    with pytest.raises(ResumeError, match=r"obs\['label'\]: 1 of 70 .*'cell4'"):
        model.train(**WORDS, run_dir=tmp_path, resume="auto")


def test_columns_of_many_cells_are_small_in_a_state(adata: AnnData, make: Any) -> None:
    from cellvae.estimator.resume import read_cell_values_of

    model = make(adata, SETUP)
    values = read_cell_values_of(model, model.rows_of_model())
    assert {name: str(column.values.dtype) for name, column in values.items()} == {
        "counts": "uint32",
        "batch.batch": "uint8",
        "labels.label": "uint8",
        "size_factor.size": "float32",
        "categorical.donor": "uint8",
        "categorical.site": "uint8",
        "continuous.age": "float32",
        "continuous.depth": "float32",
    }
