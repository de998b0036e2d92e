"""Files of AnnData that are written part by part."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from cellvae.data.files import matrix_writer as matrix_file
from cellvae.data.files.matrix_writer import MatrixFile, check_new_file
from cellvae.errors import InvalidOptionError


@pytest.fixture(params=["h5ad", "zarr"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """File that is not there yet, in a folder of its own."""
    if request.param == "zarr":
        pytest.importorskip("zarr", minversion="3")
    return check_new_file(tmp_path / f"x.{request.param}")


def read(path: Path) -> anndata.AnnData:
    return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


def write(path: Path, values: np.ndarray, cells: pd.Index, genes: list[str]) -> None:
    with MatrixFile(path, cells, genes) as file:
        for first in range(0, len(values), 3):
            file.write(slice(first, min(first + 3, len(values))), values[first : first + 3])


@pytest.mark.parametrize("chunk_bytes", [1, 50, 2**22])
def test_what_is_written_is_read(
    chunk_bytes: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_file, "CHUNK_BYTES", chunk_bytes)
    values = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    cells, genes = pd.Index([f"c{i}" for i in range(10)]), ["d", "a", "c", "b"]
    write(path, values, cells, genes)
    adata = read(path)
    assert list(adata.obs_names) == list(cells)
    assert list(adata.var_names) == genes
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, values)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_files_can_be_read_a_part_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    write(path, values, pd.RangeIndex(10), list("abcd"))
    backed = anndata.read_h5ad(path, backed="r")
    np.testing.assert_array_equal(backed.X[3:5], values[3:5])
    backed.file.close()


def test_cells_of_the_same_name_get_numbers(path: Path) -> None:
    values = np.ones((3, 1), dtype=np.float32)
    write(path, values, pd.Index(["b", "a", "b"]), ["gene"])
    adata = read(path)
    assert list(adata.obs_names) == ["0", "1", "2"]
    assert list(adata.obs["cell"]) == ["b", "a", "b"]


def test_a_file_that_was_not_finished_is_not_there(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), MatrixFile(path, pd.RangeIndex(5), ["gene"]) as file:
        file.write(slice(0, 2), np.ones((2, 1), dtype=np.float32))
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []


def test_files_that_cannot_be_made_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.h5ad").touch()
    monkeypatch.setattr(matrix_file, "has_zarr", lambda: False)
    for name, message in (
        ("x.loom", "ends in .h5ad or .zarr; got "),
        ("x.h5ad", "is not there yet"),
        ("nowhere/x.h5ad", "Expected a folder"),
        ("x.zarr", "the package zarr, version 3"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            check_new_file(tmp_path / name)
