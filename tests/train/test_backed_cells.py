"""An AnnData in backed mode is read in runs, as cells in files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

import cellvae
from cellvae.data import open_cells
from cellvae.data.batches.run_order import RunOrder
from cellvae.data.storage.disk.loaded_rows import stored_reader
from cellvae.data.storage.matrix_files.stored_matrix import StoredMatrix
from cellvae.data.synthetic import synthetic_iid
from cellvae.errors import InvalidDataError
from cellvae.model import SCVI
from cellvae.train.run import split_blocks

WORDS: dict[str, Any] = {"max_epochs": 3, "seed": 0, "batch_size": 32}


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    made = synthetic_iid(batch_size=150, n_genes=40, n_proteins=0, n_regions=0, dropout_ratio=0.1)
    made.X[:, 0] = 1
    made.X = sparse.csr_matrix(made.X)
    return made


@pytest.fixture(params=["csr", "dense"])
def path(
    request: pytest.FixtureRequest,
    adata: anndata.AnnData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    written = adata.copy()
    if request.param == "dense":
        written.X = written.X.toarray()
    written.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    return tmp_path / "cells.h5ad"


def trained(cells: Any) -> SCVI:
    SCVI.setup_anndata(cells, batch_key="batch")
    cellvae.settings.seed = 0
    model = SCVI(cells, n_hidden=16)
    model.train(**WORDS)
    return model


def same_weights(first: SCVI, second: SCVI) -> bool:
    other = second.module.state_dict()
    return all(torch.equal(x, other[name]) for name, x in first.module.state_dict().items())


@pytest.mark.trains
def test_it_trains_as_memory_where_it_fits_into_a_buffer(
    adata: anndata.AnnData, path: Path
) -> None:
    backed = anndata.read_h5ad(path, backed="r")
    model = trained(backed)
    assert stored_reader(model.rows) is not None
    assert same_weights(model, trained(adata.copy()))
    backed.file.close()


@pytest.mark.trains
def test_it_trains_as_open_cells_where_it_does_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = RunOrder(run_length=5, buffer_size=96)
    monkeypatch.setattr(split_blocks, "plan_order", lambda *_, **__: order)
    read, n_cells = StoredMatrix.read, []

    def counted(self: StoredMatrix, cells: np.ndarray) -> Any:
        n_cells.append(len(cells))
        return read(self, cells)

    backed = anndata.read_h5ad(path, backed="r")
    SCVI.setup_anndata(backed, batch_key="batch")
    cellvae.settings.seed = 0
    model = SCVI(backed, n_hidden=16)
    with monkeypatch.context() as spy:
        spy.setattr(StoredMatrix, "read", counted)
        model.train(**WORDS)
    # Three epochs of three buffers, validation cells once, and a sample of the counts.
    assert len(n_cells) <= 3 * 3 + 2 + 1
    assert same_weights(model, trained(open_cells(path)))
    backed.file.close()


def test_views_and_answers_are_those_of_memory(adata: anndata.AnnData, path: Path) -> None:
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=16)
    model.is_trained = True
    backed = anndata.read_h5ad(path, backed="r")
    chosen = np.random.default_rng(0).permutation(300)[:70]
    genes = np.random.default_rng(1).permutation(40)
    for which, own in ((slice(None), adata), (chosen, adata[chosen])):
        answers = []
        for data in (backed[which], own, backed[which, genes]):
            torch.manual_seed(0)
            answers.append(model.get_elbo(data, return_mean=False, batch_size=64))
        np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)
        np.testing.assert_allclose(answers[2], answers[1], rtol=1e-5)
    backed.file.close()


@pytest.mark.trains
def test_a_file_that_was_opened_for_writing_is_read_as_anndata_reads_it(
    adata: anndata.AnnData, path: Path
) -> None:
    backed = anndata.read_h5ad(path, backed="r+")
    model = trained(backed)
    assert stored_reader(model.rows) is None
    assert same_weights(model, trained(adata.copy()))
    changed = model.get_elbo()
    stored = backed.X.group["data"] if hasattr(backed.X, "group") else backed.X
    stored[0] = 50  # is seen, since nothing of the file is kept
    assert model.get_elbo() != changed
    backed.file.close()


@pytest.mark.trains
def test_a_file_that_was_changed_since_is_named(path: Path, adata: anndata.AnnData) -> None:
    backed = anndata.read_h5ad(path, backed="r")
    SCVI.setup_anndata(backed)
    model = SCVI(backed, n_hidden=16)
    adata[:200].copy().write_h5ad(path.with_name("new.h5ad"))
    path.with_name("new.h5ad").replace(path)
    with pytest.raises(InvalidDataError, match=r"cells\.h5ad' as it was when it was opened"):
        model.train(**WORDS)
    backed.file.close()
