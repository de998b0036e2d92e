"""Loom files: what anndata with loompy makes of them, without loompy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data import read_loom
from cellvae.errors import InvalidDataError, InvalidOptionError, UnknownKeyError

DENSE = np.array([[0, 1, 2, 0], [3, 0, 0, 0], [0, 0, 4, 5]])
"""Main matrix, [genes, cells]."""


def layers_of(adata: AnnData) -> dict[str, Any]:
    """Layers without `X`, which anndata 0.13 has among them."""
    return {name: layer for name, layer in adata.layers.items() if name is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cells.loom"
    with h5py.File(path, "w") as file:
        file.attrs["LOOM_SPEC_VERSION"] = "2.0.1"
        file["matrix"] = DENSE
        file.create_group("layers")["spliced"] = DENSE * 10.0
        rows, columns = file.create_group("row_attrs"), file.create_group("col_attrs")
        rows["Gene"] = np.array([b"Actb", b"B&amp;2", b"C"])
        rows["Kind"] = np.array(["x", "x", "x"], dtype=h5py.string_dtype())
        columns["CellID"] = np.array([b"a", b"b", b"c", b"d"])
        columns["ClusterID"] = np.array([[1], [0], [1], [2]])
        columns["umap_1"] = np.array([0.0, 1.0, 2.0, 3.0])
        columns["umap_2"] = np.array([4.0, 5.0, 6.0, 7.0])
        columns["Spatial"] = np.arange(8.0).reshape(4, 2)
    return path


@pytest.mark.parametrize("is_sparse", [True, False])
def test_every_part_is_read(path: Path, is_sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellvae.data.readers.loom.VALUES_AT_ONCE", 7)
    adata = read_loom(path, sparse=is_sparse, obsm_mapping={"X_umap": ["umap_1", "umap_2"]})
    assert sparse.issparse(adata.X) == is_sparse and adata.X.dtype == np.float32
    matrices = {"X": adata.X, **layers_of(adata)}
    dense = {name: m.toarray() if is_sparse else np.asarray(m) for name, m in matrices.items()}
    assert sorted(dense) == ["X", "matrix", "spliced"]
    np.testing.assert_array_equal(dense["X"], DENSE.T * 10)
    np.testing.assert_array_equal(dense["matrix"], DENSE.T)
    assert adata.layers["matrix"].dtype == DENSE.dtype
    assert (
        adata.var_names.tolist() == ["Actb", "B&2", "C"] and adata.var["Kind"].tolist() == ["x"] * 3
    )
    assert adata.obs_names.tolist() == ["a", "b", "c", "d"]
    assert adata.obs["ClusterID"].tolist() == [1, 0, 1, 2] and [*adata.obs] == ["ClusterID"]
    assert adata.obsm["X_umap"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert adata.obsm["Spatial"].shape == (4, 2)
    old = read_loom(path, obsm_names={"X_umap": ["umap_1", "umap_2"]})
    np.testing.assert_array_equal(old.obsm["X_umap"], adata.obsm["X_umap"])
    with pytest.raises(InvalidOptionError, match="obsm_names; got both"):
        read_loom(path, obsm_names={"a": ["umap_1"]}, obsm_mapping={"a": ["umap_1"]})


def test_the_main_matrix_comes_without_the_layer(path: Path) -> None:
    adata = read_loom(path, X_name="", dtype="int64")
    np.testing.assert_array_equal(adata.X.toarray(), DENSE.T)
    assert adata.X.dtype == np.int64 and [*layers_of(adata)] == ["spliced"]
    with h5py.File(path, "a") as file:
        del file["layers"], file["col_attrs"]["CellID"]
    bare = read_loom(path)
    np.testing.assert_array_equal(bare.X.toarray(), DENSE.T)
    assert not layers_of(bare) and bare.obs_names.tolist() == ["0", "1", "2", "3"]


def test_columns_of_one_value_can_be_moved(path: Path) -> None:
    adata = read_loom(path, cleanup=True)
    assert adata.uns == {"loom-var": {"Kind": "x"}} and not [*adata.var]


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownKeyError, match=r"got 'umap_3'\. Did you mean 'umap_[12]'"):
        read_loom(path, obsm_mapping={"X_umap": ["umap_1", "umap_3"]})
    with pytest.raises(FileNotFoundError, match="Expected a loom file"):
        read_loom(tmp_path / "none.loom")
    (tmp_path / "text.loom").write_text("not at all")
    with pytest.raises(InvalidDataError, match="it is none"):
        read_loom(tmp_path / "text.loom")
    with h5py.File(path, "a") as file:
        del file["row_attrs"]
    with pytest.raises(InvalidDataError, match="Expected 'row_attrs'"):
        read_loom(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kwargs", [{}, {"X_name": "matrix", "sparse": False}, {"cleanup": True}])
def test_loompy_gives_the_same(path: Path, kwargs: dict[str, Any]) -> None:
    pytest.importorskip("loompy", reason="loompy is not installed")
    from anndata.io import read_loom as read_by_loompy

    ours = read_loom(path, validate=False, **kwargs)
    theirs = read_by_loompy(path, validate=False, **kwargs)
    assert ours.obs.equals(theirs.obs[ours.obs.columns]) and ours.var.equals(theirs.var)
    assert ours.uns == theirs.uns and {*layers_of(ours)} == {*layers_of(theirs)}
    for name in (None, *layers_of(ours)):
        mine, other = (a.X if name is None else a.layers[name] for a in (ours, theirs))
        assert name is not None or mine.dtype == other.dtype
        assert (
            (np.asarray(mine - other) == 0).all()
            if not sparse.issparse(mine)
            else (mine != other).nnz == 0
        )
    assert {*ours.obsm} == {*theirs.obsm}
