"""Collections that annbatch has written are cells in files like others."""

import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cellvae.data.files.open_cells import open_cells
from cellvae.errors import InvalidDataError, InvalidOptionError

N_CELLS, N_GENES = 130, 20


@pytest.fixture(autouse=True)
def zarr() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that zarr imports
        return pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")


def cells_of(seed: int, n_cells: int = N_CELLS) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(rng.poisson(0.5, (n_cells, N_GENES)).astype(np.float32))
    obs = pd.DataFrame(
        {"batch": pd.Categorical(np.where(np.arange(n_cells) % 2, f"y{seed}", "x"))},
        index=[f"s{seed}_{i}" for i in range(n_cells)],
    )
    made = anndata.AnnData(counts, obs=obs, layers={"doubled": counts * 2})
    made.var_names = [f"g{i}" for i in range(N_GENES)]
    made.obsm["proteins"] = rng.poisson(3, (n_cells, 2)).astype(np.float32)
    return made


def write_parts(path: Path, parts: list[anndata.AnnData], zarr: Any) -> Path:
    """Write what annbatch writes, without its shards: it needs Python 3.12."""
    zarr.open_group(str(path), mode="w", zarr_format=3)
    for number, part in enumerate(parts):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the format that will be the default
            part.write_zarr(path / f"dataset_{number}")
    metadata = path / "zarr.json"
    values = json.loads(metadata.read_text())
    values["attributes"] = {"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"}
    metadata.write_text(json.dumps(values))
    return path


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path, zarr: Any) -> None:
    parts = [cells_of(i, 5) for i in range(12)]
    path = write_parts(tmp_path / "c.zarr", parts, zarr)
    cells = open_cells(path)
    expected = anndata.concat(parts)
    assert [*cells.obs_names] == [*expected.obs_names]
    assert [*cells.obs.columns] == ["batch"]
    np.testing.assert_array_equal(cells.to_memory().X.toarray(), expected.X.toarray())
    by_pattern = open_cells(path / "dataset_*")
    pd.testing.assert_frame_equal(by_pattern.obs, cells.obs)


def test_a_collection_is_one_source_beside_others(tmp_path: Path, zarr: Any) -> None:
    path = write_parts(tmp_path / "c.zarr", [cells_of(0, 5), cells_of(1, 4)], zarr)
    cells_of(2, 3).write_h5ad(tmp_path / "d.h5ad")
    cells = open_cells([path, tmp_path / "d.h5ad"])
    assert cells.obs["file"].tolist() == ["c"] * 9 + ["d"] * 3
    assert [*cells.obs["batch"].cat.categories] == ["x", "y0", "y1", "y2"]
    with pytest.raises(InvalidOptionError, match="each file once"):
        open_cells([path, path / "dataset_0"])


def test_parts_that_share_names_of_cells_get_their_own(tmp_path: Path, zarr: Any) -> None:
    path = write_parts(tmp_path / "c.zarr", [cells_of(0, 2), cells_of(0, 2)], zarr)
    names = [*open_cells(path).obs_names]
    assert names == [f"s0_{i}-c-dataset_{part}" for part in range(2) for i in range(2)]


def test_a_collection_that_was_not_finished_is_refused(tmp_path: Path, zarr: Any) -> None:
    path = write_parts(tmp_path / "c.zarr", [cells_of(0, 5)], zarr)
    metadata = path / "zarr.json"
    whole = metadata.read_text()
    metadata.write_text(whole.replace("annbatch-preshuffled", "other"))
    with pytest.raises(InvalidDataError, match="got 1 parts and no mark of its end"):
        open_cells(path)
    assert open_cells(path / "dataset_*").n_obs == 5
    metadata.write_text(whole)
    (path / "dataset_0").rename(tmp_path / "away")
    with pytest.raises(InvalidDataError, match="got 0 parts"):
        open_cells(path)


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="Expected paths.* got int"):
        open_cells([3])


@pytest.fixture
def annbatch() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        return pytest.importorskip("annbatch", reason="annbatch (Python >= 3.12) is not installed")


def test_a_shuffled_collection_has_the_cells_that_were_added(tmp_path: Path, annbatch: Any) -> None:
    parts = [cells_of(0), cells_of(1)]
    for number, part in enumerate(parts):
        part.write_h5ad(tmp_path / f"{number}.h5ad")
    paths = sorted(tmp_path.glob("*.h5ad"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata of zarr
        collection = annbatch.DatasetCollection(tmp_path / "c.zarr").add_adatas(
            paths,
            dataset_size=100,
            shuffle_chunk_size=10,
            n_obs_per_chunk=16,
            shard_size=64,
            rng=np.random.default_rng(0),
        )
    cells = open_cells(tmp_path / "c.zarr")
    expected = anndata.concat(parts)[cells.obs_names]
    assert [*cells.obs_names] != [*anndata.concat(parts).obs_names]
    loaded = cells.to_memory()
    np.testing.assert_array_equal(loaded.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(
        loaded.layers["doubled"].toarray(), expected.layers["doubled"].toarray()
    )
    np.testing.assert_array_equal(loaded.obsm["proteins"], expected.obsm["proteins"])
    assert loaded.obs["batch"].astype(str).equals(expected.obs["batch"].astype(str))
    sources = [Path(path).stem for path in loaded.obs["src_path"].astype(str)]
    assert sources == [name[1] for name in cells.obs_names]
    pd.testing.assert_frame_equal(open_cells(collection).obs, cells.obs)
    # Chunks of 16 cells, read without zarr.
    assert 12 < cells.X.cells_per_chunk < 20
    part = cells.X.parts[0]
    part.read(np.arange(3))
    assert {type(rows).__name__ for rows in part.readable.values()} == {"ZarrRows"}
