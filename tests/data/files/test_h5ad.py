"""Reading: cells from a file, and what is said of files that hold none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellvae.data.files.h5ad import read_h5ad, write_h5ad
from cellvae.errors import InvalidDataError


def test_cells_come_back_from_their_file(tmp_path: Path) -> None:
    AnnData(np.eye(3, 2, dtype=np.float32)).write_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(read_h5ad(tmp_path / "cells.h5ad").X, np.eye(3, 2))


def test_files_that_hold_no_cells_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.h5ad").write_text("no cells here")
    with pytest.raises(InvalidDataError, match=r"Expected an AnnData .*text.h5ad'; it cannot"):
        read_h5ad(tmp_path / "text.h5ad")
    with pytest.raises(FileNotFoundError):
        read_h5ad(tmp_path / "absent.h5ad")


def test_writing_leaves_the_cells_as_they_are(tmp_path: Path) -> None:
    cells = AnnData(np.eye(3, 2, dtype=np.float32), layers={"twice": 2 * np.eye(3, 2)})
    cells.obs["donor"] = ["a", "b", "a"]
    cells.raw = cells
    before = cells.obs.dtypes.to_dict()
    write_h5ad(cells, tmp_path / "cells.h5ad", {"compression": "gzip"})
    assert cells.obs.dtypes.to_dict() == before
    again = read_h5ad(tmp_path / "cells.h5ad")
    assert again.obs["donor"].tolist() == ["a", "b", "a"]
    np.testing.assert_array_equal(again.layers["twice"], 2 * np.eye(3, 2))
    np.testing.assert_array_equal(again.raw.X, np.eye(3, 2))


def test_texts_of_pandas_own_type_are_written(tmp_path: Path) -> None:
    adata = AnnData(np.ones((2, 2), dtype=np.float32))
    adata.obs = pd.DataFrame(
        {"kind": pd.array(["x", "y"], dtype="string")}, index=pd.Index(["a", "b"], dtype="string")
    )
    write_h5ad(adata, tmp_path / "cells.h5ad", {})
    again = read_h5ad(tmp_path / "cells.h5ad")
    assert [*again.obs_names] == ["a", "b"] and [*again.obs["kind"]] == ["x", "y"]
    assert isinstance(adata.obs["kind"].dtype, pd.StringDtype)
