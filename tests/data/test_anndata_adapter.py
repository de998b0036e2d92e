"""Private names of AnnData do what the package needs of them, in this version of AnnData."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from cellvae.data.anndata_adapter import parent_of_view, replace_contents, subset_genes_inplace


def example() -> AnnData:
    counts = np.arange(12, dtype=np.float32).reshape(3, 4)
    names = pd.DataFrame(index=["a", "b", "c", "d"])
    return AnnData(counts, obs=pd.DataFrame(index=["x", "y", "z"]), var=names)


def test_genes_are_subset_in_place_by_mask_and_by_name() -> None:
    adata = same = example()
    subset_genes_inplace(adata, np.array([True, False, True, True]))
    assert [*adata.var_names] == ["a", "c", "d"]
    subset_genes_inplace(adata, ["d", "a"])
    assert same is adata and adata.X.tolist() == [[3, 0], [7, 4], [11, 8]]


def test_contents_are_replaced_and_the_object_stays() -> None:
    adata = same = example()
    replace_contents(adata, example()[:2, ["b"]].copy())
    assert same is adata and adata.shape == (2, 1) and adata.X.tolist() == [[1], [5]]


def test_the_parent_of_a_view_in_backed_mode_and_its_indices(tmp_path: Path) -> None:
    example().write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    parent, cells, genes = parent_of_view(adata[["z", "x"], [False, True, False, True]])
    assert parent is adata
    assert cells.tolist() == [2, 0] and genes.tolist() == [1, 3]
    adata.file.close()
