"""AnnData files that are written a range of cells at a time."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from cellvae.data.files import streaming_writer
from cellvae.data.files.streaming_writer import CellWriter, MatrixWriter, check_new_file
from cellvae.errors import InvalidOptionError


@pytest.fixture(params=["h5ad", "zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Path of a new file in an empty folder."""
    if request.param == "zarr":
        pytest.importorskip("zarr", minversion="3")
    return check_new_file(tmp_path / f"x.{request.param}")


def read(path: Path) -> anndata.AnnData:
    return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


def write(path: Path, values: np.ndarray, cells: pd.Index, genes: list[str]) -> None:
    with MatrixWriter(path, cells, genes) as file:
        for first in range(0, len(values), 3):
            file.write(slice(first, min(first + 3, len(values))), values[first : first + 3])


@pytest.mark.parametrize("chunk_bytes", [1, 50, 2**22])
def test_matrix_round_trip(chunk_bytes: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_writer, "CHUNK_BYTES", chunk_bytes)
    values = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    cells, genes = pd.Index([f"c{i}" for i in range(10)]), ["d", "a", "c", "b"]
    write(path, values, cells, genes)
    adata = read(path)
    assert list(adata.obs_names) == list(cells)
    assert list(adata.var_names) == genes
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, values)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_matrix_can_be_read_in_backed_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    write(path, values, pd.RangeIndex(10), list("abcd"))
    backed = anndata.read_h5ad(path, backed="r")
    np.testing.assert_array_equal(backed.X[3:5], values[3:5])
    backed.file.close()


def test_repeated_cell_names_become_a_column(path: Path) -> None:
    values = np.ones((3, 1), dtype=np.float32)
    write(path, values, pd.Index(["b", "a", "b"]), ["gene"])
    adata = read(path)
    assert list(adata.obs_names) == ["0", "1", "2"]
    assert list(adata.obs["cell"]) == ["b", "a", "b"]


def test_interrupted_matrix_leaves_no_file(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), MatrixWriter(path, pd.RangeIndex(5), ["gene"]) as file:
        file.write(slice(0, 2), np.ones((2, 1), dtype=np.float32))
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []


def test_paths_that_cannot_be_created_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.h5ad").touch()
    monkeypatch.setattr(streaming_writer, "has_zarr", lambda: False)
    for name, message in (
        ("x.loom", "ends in .h5ad or .zarr; got "),
        ("x.h5ad", "does not exist yet"),
        ("nowhere/x.h5ad", "Expected an existing folder"),
        ("x.zarr", "the package zarr, version 3"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            check_new_file(tmp_path / name)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("repeated", [False, True])
def test_embedding_round_trip(tmp_path: Path, suffix: str, repeated: bool) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr", minversion="3")
    path = check_new_file(tmp_path / f"z{suffix}")
    random = np.random.default_rng(0)
    z, kl = random.normal(size=(7, 3)).astype(np.float32), random.random(7).astype(np.float32)
    names = pd.Index(["a"] * 7 if repeated else list("abcdefg"))
    with CellWriter(path, names) as file:
        for rows in (slice(4, 7), slice(0, 4)):
            file.write(rows, {"z": z[rows], "kl": kl[rows]})
        assert not path.exists()
    found = read(path)
    assert found.X is None
    assert found.shape == (7, 0)
    np.testing.assert_array_equal(found.obsm["z"], z)
    np.testing.assert_array_equal(found.obs["kl"], kl)
    assert list(found.obs.columns) == (["cell", "kl"] if repeated else ["kl"])
    assert list(found.obs["cell"] if repeated else found.obs_names) == list(names)
    # AnnData can write what it has read.
    found.write_h5ad(tmp_path / "again.h5ad")


def test_embedding_with_only_obs_or_only_obsm(tmp_path: Path) -> None:
    names = pd.Index(["a", "b"])
    for name, width in (("kl", 0), ("z", 2)):
        with CellWriter(tmp_path / f"{name}.h5ad", names) as file:
            file.write(slice(0, 2), {name: np.ones((2, width) if width else 2, np.float32)})
        found = read(tmp_path / f"{name}.h5ad")
        assert list(found.obs.columns) == ([] if width else ["kl"])
        assert list(found.obsm) == (["z"] if width else [])


def test_failed_embedding_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no more"),
        CellWriter(tmp_path / "z.h5ad", pd.Index(["a"])),
    ):
        raise ValueError("no more")
    assert not any(tmp_path.iterdir())
