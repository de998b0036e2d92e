"""Values of cells in an AnnData file, written part by part."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from cellvae.data.files.embedding_writer import EmbeddingFile
from cellvae.data.files.matrix_writer import check_new_file


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("repeated", [False, True])
def test_parts_come_together(tmp_path: Path, suffix: str, repeated: bool) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr", minversion="3")
    path = check_new_file(tmp_path / f"z{suffix}")
    numbers = np.random.default_rng(0)
    z, kl = numbers.normal(size=(7, 3)).astype(np.float32), numbers.random(7).astype(np.float32)
    names = pd.Index(["a"] * 7 if repeated else list("abcdefg"))
    with EmbeddingFile(path, names, {"kl": 0, "z": 3}) as file:
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
    # What is read can be written by AnnData again.
    found.write_h5ad(tmp_path / "again.h5ad")


def test_without_a_matrix_or_without_columns(tmp_path: Path) -> None:
    names = pd.Index(["a", "b"])
    for name, width in (("kl", 0), ("z", 2)):
        with EmbeddingFile(tmp_path / f"{name}.h5ad", names, {name: width}) as file:
            file.write(slice(0, 2), {name: np.ones((2, width) if width else 2)})
        found = read(tmp_path / f"{name}.h5ad")
        assert list(found.obs.columns) == ([] if width else ["kl"])
        assert list(found.obsm) == (["z"] if width else [])


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no more"),
        EmbeddingFile(tmp_path / "z.h5ad", pd.Index(["a"]), {"z": 2}),
    ):
        raise ValueError("no more")
    assert not any(tmp_path.iterdir())
