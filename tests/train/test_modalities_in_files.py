"""Modalities of one matrix in files are read together: each cell once."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from cellvae.data.batches.run_order import RunOrder
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.files.open_cells import open_cells
from cellvae.data.storage.disk.loaded_rows import load_rows
from cellvae.model import MULTIVI
from cellvae.train.run import split_blocks

N_GENES, N_REGIONS = 12, 18
ORDER = RunOrder(run_length=5, buffer_size=64)


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    """Genes and regions in turns, 120 cells of two files."""
    random = np.random.default_rng(0)
    counts = random.poisson(0.3, (120, N_GENES + N_REGIONS)).astype(np.float32)
    counts[:, 0] = counts[:, 1] = 1
    made = anndata.AnnData(sparse.csr_matrix(counts))
    made.obs["batch"] = np.repeat(["a", "b"], 60)
    types = np.full(N_GENES + N_REGIONS, "Peaks", dtype=object)
    types[: 2 * N_GENES : 2] = "Gene Expression"
    made.var["feature_types"] = types
    return made


@pytest.fixture
def files(adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    adata[:60].copy().write_h5ad(tmp_path / "a.h5ad")
    adata[60:, ::-1].copy().write_h5ad(tmp_path / "b.h5ad")  # genes in another order
    return tmp_path


@pytest.fixture
def cells(files: Path) -> CellFiles:
    return open_cells([files / "a.h5ad", files / "b.h5ad"])


def test_genes_and_regions_are_read_together(
    cells: CellFiles, adata: anndata.AnnData, n_read: list[int]
) -> None:
    MULTIVI.setup_anndata(cells, batch_key="batch")
    rows = MULTIVI(cells).rows
    chosen = torch.tensor([3, 10, 59, 60, 61, 119])
    n_read.clear()
    batch = load_rows(rows, chosen).take(torch.tensor([5, 0, 3]))
    assert n_read == [3, 3]
    dense = adata.X.toarray()[[119, 3, 60]]
    is_gene = (adata.var["feature_types"] == "Gene Expression").to_numpy()
    np.testing.assert_array_equal(batch.counts.numpy(), dense[:, is_gene])
    np.testing.assert_array_equal(batch.regions.numpy(), dense[:, ~is_gene])


def test_all_modalities_are_checked_in_one_pass(
    cells: CellFiles, files: Path, n_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    MULTIVI.setup_anndata(cells, batch_key="batch")
    model = MULTIVI(cells, n_hidden=8)
    assert sum(n_read) == 120
    n_read.clear()
    MULTIVI.setup_anndata(cells, batch_key="batch")
    # Other cells, of which the model asks a question: one pass too.
    part = cells[:100]
    model.is_trained = True
    model.get_latent_representation(part)
    assert sum(n_read) == 100 + 100
    # Without a place for what is remembered.
    (files / "full").write_text("")
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(files / "full"))
    n_read.clear()
    MULTIVI.setup_anndata(open_cells([files / "a.h5ad", files / "b.h5ad"]))
    assert sum(n_read) == 120


def test_modalities_of_a_backed_anndata_have_checks_of_their_own(
    adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_read: list[int]
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    lacking = adata.copy()
    is_gene = (adata.var["feature_types"] == "Gene Expression").to_numpy()
    counts = lacking.X.toarray()
    counts[:30][:, ~is_gene] = 0
    counts[100:][:, is_gene] = 0
    lacking.X = sparse.csr_matrix(counts)
    lacking.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    expected = {"genes + regions": 70, "genes": 30, "regions": 20}
    for data in (lacking, backed, open_cells(tmp_path / "cells.h5ad")):
        MULTIVI.setup_anndata(data, batch_key="batch")
        assert MULTIVI(data, n_hidden=8).registration.modality_cells == expected
    assert n_read == [120, 120]  # each of the two ways once


def test_parts_of_the_cells_are_read_together(
    cells: CellFiles, adata: anndata.AnnData, n_read: list[int]
) -> None:
    chosen = np.array([100, 7, 30, 31])
    part = cells[chosen]
    MULTIVI.setup_anndata(part)
    rows = MULTIVI(part).rows
    n_read.clear()
    batch = load_rows(rows, torch.arange(4)).take(torch.arange(4))
    assert sum(n_read) == 4
    is_gene = (adata.var["feature_types"] == "Gene Expression").to_numpy()
    np.testing.assert_array_equal(batch.counts.numpy(), adata.X.toarray()[chosen][:, is_gene])


@pytest.mark.trains
def test_an_epoch_reads_each_cell_once(
    cells: CellFiles, n_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_blocks, "plan_order", lambda *_, **__: ORDER)
    MULTIVI.setup_anndata(cells, batch_key="batch")
    model = MULTIVI(cells, n_hidden=8)
    n_read.clear()
    model.train(max_epochs=2, batch_size=16, train_size=1.0, early_stopping=False)
    # A sample of cells is read before, to choose between dense and sparse batches.
    assert sum(n_read) == 3 * 120
    n_read.clear()
    latent = model.get_latent_representation()
    assert sum(n_read) == 120
    assert latent.shape[0] == 120


@pytest.mark.trains
def test_weights_are_those_of_memory(cells: CellFiles, adata: anndata.AnnData) -> None:
    found = []
    for data in (cells, adata):
        torch.manual_seed(0)
        MULTIVI.setup_anndata(data, batch_key="batch")
        model = MULTIVI(data, n_hidden=8)
        model.train(max_epochs=2, batch_size=16, seed=0)
        found.append(model.module.state_dict())
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name]), name


def test_matrices_of_other_cells_or_layers_are_read_each_by_itself(
    adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    layered = adata.copy()
    layered.layers["twice"] = layered.X * 2
    layered.write_h5ad(tmp_path / "a.h5ad")
    cells = open_cells(tmp_path / "a.h5ad")
    x = cells.X
    assert cells[:, 3:].X.shares_cells(cells[:, :3].X)
    assert x.shares_cells(x)
    assert not x.shares_cells(cells.layers["twice"])
    assert not x.shares_cells(cells[:60].X)
    assert cells[:60].X.shares_cells(cells[:60, 2:].X)
