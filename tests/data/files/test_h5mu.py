"""Files of MuData: what is written is read back, and the MuData is not changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data.files.h5mu import cell_file_name, read_cells, read_h5mu, write_cells
from cellvae.data.mudata_adapter import is_mudata, keep_columns, make_mudata
from cellvae.errors import InvalidDataError, UnknownOptionError

CELLS = [f"cell-{i}" for i in range(10)]


def make(rna_cells: list[int] | None = None) -> Any:
    """Genes of some cells in an order of their own, and proteins of all."""
    random = np.random.default_rng(0)
    obs = pd.DataFrame({"batch": pd.array(list("ab") * 5, dtype="string")}, index=CELLS)
    rna = AnnData(
        sparse.csr_matrix(random.poisson(1, (10, 6)).astype(np.float32)),
        obs=obs,
        var=pd.DataFrame(index=[f"gene-{i}" for i in range(6)]),
        layers={"counts": np.arange(60.0).reshape(10, 6)},
    )
    if rna_cells is not None:
        rna = rna[rna_cells].copy()
    protein = AnnData(
        random.poisson(3, (10, 3)).astype(np.float32),
        obs=pd.DataFrame(index=CELLS),
        var=pd.DataFrame(index=["CD3", "CD4", "CD19"]),
    )
    with keep_columns(mudata):
        cells = mudata.MuData({"rna": rna, "protein": protein})
        cells.obs["donor"] = pd.array(list("uvvuvvuvvv"), dtype="string")
        cells.obs["age"] = np.arange(10)
        cells.obsm["X_latent"] = np.arange(20.0).reshape(10, 2)
        cells.uns["cellvae"] = {"MODEL": {"batch_key": "batch", "modalities": {"batch_key": "rna"}}}
    return cells


def assert_same(found: Any, expected: Any) -> None:
    assert list(found.obs_names) == list(expected.obs_names)
    assert list(found.mod) == list(expected.mod)
    assert found.obs["donor"].astype(str).tolist() == expected.obs["donor"].astype(str).tolist()
    assert found.obs["age"].tolist() == expected.obs["age"].tolist()
    assert found.uns["cellvae"] == expected.uns["cellvae"]
    np.testing.assert_array_equal(found.obsm["X_latent"], expected.obsm["X_latent"])
    for name, table in expected.mod.items():
        assert list(found[name].obs_names) == list(table.obs_names)
        assert list(found[name].var_names) == list(table.var_names)
        np.testing.assert_array_equal(dense(found[name].X), dense(table.X))
        for layer in table.layers:
            np.testing.assert_array_equal(
                dense(found[name].layers[layer]), dense(table.layers[layer])
            )


def dense(matrix: Any) -> Any:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix[:])


@pytest.mark.parametrize("rna_cells", [None, [7, 2, 0, 4]], ids=["all cells", "some cells"])
def test_what_is_written_is_read_back_and_the_mudata_is_not_changed(
    tmp_path: Path, rna_cells: list[int] | None
) -> None:
    cells = make(rna_cells)
    before = cells.obs.dtypes.to_dict(), cells["rna"].obs.dtypes.to_dict()
    write_cells(cells, tmp_path / "cells.h5mu", {"compression": "gzip"})
    assert (cells.obs.dtypes.to_dict(), cells["rna"].obs.dtypes.to_dict()) == before
    assert_same(read_cells(tmp_path / "cells.h5mu"), cells)


def test_views_and_backed_mudata_are_written(tmp_path: Path) -> None:
    cells = make()
    with keep_columns(mudata):
        view = cells[[5, 2, 7]]
    write_cells(view, tmp_path / "view.h5mu", {})
    found = read_cells(tmp_path / "view.h5mu")
    assert list(found.obs_names) == ["cell-5", "cell-2", "cell-7"]
    np.testing.assert_array_equal(dense(found["rna"].X), dense(cells["rna"].X)[[5, 2, 7]])
    write_cells(cells, tmp_path / "whole.h5mu", {})
    with keep_columns(mudata):
        backed = mudata.read_h5mu(tmp_path / "whole.h5mu", backed="r")
    assert backed.isbacked
    write_cells(backed, tmp_path / "copy.h5mu", {})
    assert_same(read_cells(tmp_path / "copy.h5mu"), cells)


def test_other_tables_of_the_same_cells_keep_order_types_and_all_else() -> None:
    cells = make([7, 2, 0, 4])
    assert list(cells.obs_names) != CELLS
    made = make_mudata({name: table.copy() for name, table in cells.mod.items()}, cells)
    assert_same(made, cells)
    assert made.obs.dtypes.to_dict() == cells.obs.dtypes.to_dict()
    made.obs["new"] = 1
    made.uns["new"] = 1
    assert "new" not in cells.obs and "new" not in cells.uns


def test_bad_files_and_keywords_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match="a MuData has no option 'as_dense'"):
        write_cells(make(), tmp_path / "a.h5mu", {"as_dense": ["X"]})
    (tmp_path / "text.h5mu").write_text("no file of HDF5")
    with pytest.raises(InvalidDataError, match=r"Expected a MuData \(\.h5mu\) in .*text\.h5mu"):
        read_h5mu(tmp_path / "text.h5mu")
    with pytest.raises(FileNotFoundError):
        read_h5mu(tmp_path / "none.h5mu")


def test_an_anndata_is_written_as_one(tmp_path: Path) -> None:
    adata = make()["rna"]
    assert (cell_file_name(adata), cell_file_name(make())) == ("adata.h5ad", "mdata.h5mu")
    write_cells(adata, tmp_path / "cells.h5ad", {})
    found = read_cells(tmp_path / "cells.h5ad")
    assert isinstance(found, AnnData) and not is_mudata(found)
    np.testing.assert_array_equal(dense(found.X), dense(adata.X))


def test_mudata_is_not_imported_for_an_anndata() -> None:
    code = (
        "import sys, numpy, anndata\n"
        "from cellvae.model import SCVI\n"
        "from cellvae.data.mudata_adapter import is_mudata\n"
        "adata = anndata.AnnData(numpy.ones((4, 3), 'float32'))\n"
        "SCVI.setup_anndata(adata); SCVI(adata)\n"
        "assert not is_mudata(adata)\n"
        "print('mudata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
