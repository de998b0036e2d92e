"""Questions to parts of cells in files, queries from files, and minified cells of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from cellvae.criticism import create_criticism_report
from cellvae.data import open_cells
from cellvae.data.files.cell_files import CellFiles
from cellvae.data.synthetic import synthetic_iid
from cellvae.errors import DataMismatchError, DataWarning, InvalidDataError
from cellvae.model import SCANVI, SCVI


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    made = synthetic_iid(batch_size=150, n_genes=40, n_proteins=0, n_regions=0, dropout_ratio=0.1)
    made.X[:, 0] = 1
    made.X = sparse.csr_matrix(made.X)
    made.layers["counts"] = made.X.copy()
    return made


@pytest.fixture
def files(adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    for number in range(2):
        adata[number * 150 : number * 150 + 150].copy().write_h5ad(tmp_path / f"{number}.h5ad")
    return tmp_path


@pytest.fixture
def cells(files: Path) -> CellFiles:
    return open_cells(files / "*.h5ad")


def untrained(data: Any, model_class: Any = SCVI, **setup: Any) -> Any:
    """Model that answers as a trained one does."""
    model_class.setup_anndata(data, batch_key="batch", **setup)
    torch.manual_seed(0)
    model = model_class(data, n_hidden=16)
    model.is_trained = True
    return model


def test_minified_cells_of_files_are_small(cells: CellFiles, tmp_path: Path) -> None:
    model = untrained(cells, layer="counts")
    part = cells[cells.obs["labels"] == "label_1"]
    latent = model.get_latent_representation(give_mean=False), model.get_latent_representation()
    model.minify_adata()
    minified = model.adata
    assert isinstance(minified, anndata.AnnData)
    assert minified.X.nnz == minified.layers["counts"].nnz == 0
    sums = cells.to_memory().X.sum(axis=1).A1
    np.testing.assert_allclose(minified.obs["observed_lib_size"], sums)
    np.testing.assert_allclose(model.get_latent_representation(), latent[1], rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model", save_anndata=True)
    assert (tmp_path / "model" / "adata.h5ad").stat().st_size < 2**20
    again = SCVI.load(tmp_path / "model")
    expected = model.get_normalized_expression(batch_size=300, return_numpy=True)
    assert again.get_normalized_expression(return_numpy=True).shape == expected.shape
    np.testing.assert_array_equal(
        again.get_latent_representation(), model.get_latent_representation()
    )
    assert model.get_latent_representation(part).shape == (part.n_obs, 10)


@pytest.mark.parametrize("inplace", [True, False])
def test_a_query_from_files_gets_the_genes_of_the_reference(
    adata: anndata.AnnData, files: Path, cells: CellFiles, inplace: bool
) -> None:
    reference = adata[:, ::-1].copy()
    model = untrained(reference)
    kept = [name for name in adata.var_names if name not in ("gene_5", "gene_8")]
    query, expected = cells[::2, kept], adata[::2, kept].copy()
    found = []
    for data in (query, expected):
        with pytest.warns(DataWarning, match=r"38 of the 40 genes.*'gene_8', 'gene_5'"):
            aligned = SCVI.prepare_query_anndata(data, model, inplace=inplace)
        found.append(data if inplace else aligned)
    assert isinstance(found[0], CellFiles)
    assert found[0].n_vars == 40
    assert query.n_vars == (40 if inplace else 38)
    pd.testing.assert_frame_equal(found[0].var, found[1].var)
    loaded = found[0].to_memory()
    np.testing.assert_array_equal(loaded.X.toarray(), found[1].X.toarray())
    np.testing.assert_array_equal(
        loaded.layers["counts"].toarray(), found[1].layers["counts"].toarray()
    )
    latents = [model.get_latent_representation(data) for data in found]
    np.testing.assert_allclose(*latents, rtol=1e-5, atol=1e-6)
    part = found[0][3:9, ["gene_8", "gene_9"]].to_memory()
    np.testing.assert_array_equal(part.X.toarray(), found[1][3:9, ["gene_8", "gene_9"]].X.toarray())
    assert open_cells(files / "*.h5ad").n_vars == 40  # the files stay as they are


def test_a_query_of_too_few_genes_or_in_backed_mode_is_refused(
    adata: anndata.AnnData, files: Path, cells: CellFiles
) -> None:
    model = untrained(adata.copy())
    with pytest.raises(DataMismatchError, match=r"at least 80% of the 40 genes.*got 20"):
        SCVI.prepare_query_anndata(cells[:, :20], model)
    backed = anndata.read_h5ad(files / "0.h5ad", backed="r")[:, :35]
    with pytest.raises(InvalidDataError, match=r"open its file with cellvae.data.open_cells"):
        SCVI.prepare_query_anndata(backed, model, inplace=False)
    backed.file.close()


@pytest.mark.trains
def test_a_query_from_files_is_mapped(adata: anndata.AnnData, cells: CellFiles) -> None:
    reference = untrained(adata[:, :38].copy(), SCANVI, labels_key="labels", unlabeled_category="?")
    weights = {name: value.clone() for name, value in reference.module.state_dict().items()}
    query = cells[cells.obs["labels"] != "label_2"]
    query.obs["batch"] = "new"
    del query.obs["labels"]
    model = SCANVI.load_query_data(query, reference, inplace_subset_query_vars=True)
    assert [*query.var_names] == [*adata.var_names[:38]]
    assert model.registration.categories("batch")[-1] == "new"
    model.train(max_epochs=1, batch_size=32)
    assert model.get_latent_representation(query).shape == (query.n_obs, 10)
    assert {*model.predict(query)} <= {"label_0", "label_1", "label_2"}
    for name, value in reference.module.state_dict().items():
        assert torch.equal(value, weights[name])


def test_differential_expression_of_a_part(adata: anndata.AnnData, cells: CellFiles) -> None:
    model = untrained(cells)
    tables = []
    for data in (cells, adata):
        part = data[np.arange(300) % 3 > 0]
        torch.manual_seed(0)
        np.random.seed(0)
        tables.append(
            model.differential_expression(part, groupby="labels", group1="label_0", batch_size=64)
        )
    pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-3)
    assert tables[0].shape[0] == 40


def test_reports_from_a_part(cells: CellFiles, tmp_path: Path) -> None:
    model = untrained(cells)
    part = cells[::5]
    text = create_criticism_report(
        model,
        part,
        n_samples=2,
        skip_metrics=["diff_exp", "zero_fraction"],
        save_folder=tmp_path / "r",
    )
    assert "60 cells, 40 genes" in text
    assert "cv_cell_ratio" in part.obs
    assert "cv_cell_ratio" not in cells.obs
    whole = create_criticism_report(
        model, indices=np.arange(0, 300, 5), n_samples=2, skip_metrics=["diff_exp", "zero_fraction"]
    )
    assert "60 cells, 40 genes" in whole
    page = model.report(tmp_path / "page.html", part, n_cells=40, silent=True)
    assert "Latent" in page.read_text() or "latent" in page.read_text()
