"""Proteins beside genes, and cells of several modalities put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data import organize_cite_seq_10x, organize_multiome_anndatas
from cellvae.errors import InvalidDataError, UnknownKeyError


def cells(dense: Any, names: str, features: str, wrap: Callable[[Any], Any]) -> AnnData:
    obs, var = pd.DataFrame(index=names.split()), pd.DataFrame(index=features.split())
    return AnnData(wrap(np.array(dense, dtype=np.float32)), obs=obs, var=var)


WRAPS = [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("wrap", WRAPS)
def test_proteins_move_beside_the_genes(wrap: Any, copy: bool) -> None:
    adata = cells([[1, 2, 3, 4], [5, 6, 7, 8]], "a b", "G1 CD3 G2 CD4", wrap)
    adata.var["feature_types"] = ["Gene Expression", "Antibody Capture"] * 2
    adata.layers["counts"] = adata.X.copy()
    returned = organize_cite_seq_10x(adata, copy=copy)
    assert (returned is None) != copy
    assert adata.n_vars == (4 if copy else 2)
    found = adata if returned is None else returned
    table = found.obsm["protein_expression"]
    assert table.to_dict("list") == {"CD3": [2, 6], "CD4": [4, 8]}
    assert table.index.tolist() == ["a", "b"]
    assert found.var_names.tolist() == ["G1", "G2"]
    dense = found.X.toarray() if sparse.issparse(found.X) else found.X
    assert dense.tolist() == [[1, 3], [5, 7]] and found.layers["counts"].shape == (2, 2)
    assert type(found.X) is type(wrap(np.eye(2)))


def test_cells_without_proteins_are_refused() -> None:
    adata = cells([[1, 2]], "a", "G1 G2", np.asarray)
    with pytest.raises(UnknownKeyError, match="adata.var\\['feature_types'\\]"):
        organize_cite_seq_10x(adata)
    adata.var["feature_types"] = "Gene Expression"
    with pytest.raises(InvalidDataError, match="got 'Gene Expression'.*gex_only=False"):
        organize_cite_seq_10x(adata)
    assert adata.shape == (1, 2)
    with pytest.raises(InvalidDataError, match="Expected an AnnData; got dict"):
        organize_cite_seq_10x({})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", WRAPS)
def test_cells_of_one_modality_get_zeros_for_the_other(wrap: Any) -> None:
    both = cells([[1, 2, 3, 4]], "a", "G2 G1 P1 P2", wrap)
    both.var["modality"] = ["Gene Expression"] * 2 + ["Peaks"] * 2
    both.obs["batch_id"] = [1]
    rna = cells([[5, 6, 9], [7, 8, 9]], "a c", "G1 G2 G9", wrap)
    atac = cells([[10]], "d", "P2", wrap)
    found = organize_multiome_anndatas(both, rna, atac)
    assert found.obs_names.tolist() == [
        "a_paired",
        "a_expression",
        "c_expression",
        "d_accessibility",
    ]
    kinds = ["paired", "expression", "expression", "accessibility"]
    assert found.obs["modality"].tolist() == kinds
    dense = found.X.toarray() if sparse.issparse(found.X) else found.X
    assert dense.tolist() == [[1, 2, 3, 4], [6, 5, 0, 0], [8, 7, 0, 0], [0, 0, 0, 10]]
    assert sparse.issparse(found.X) == sparse.issparse(both.X)
    assert found.var.equals(both.var) and not found.is_view
    alone = organize_multiome_anndatas(both, modality_key="kind")
    assert alone.obs_names.tolist() == ["a_paired"] and alone.obs["kind"].tolist() == ["paired"]
    assert both.obs_names.tolist() == ["a"] and [*both.obs] == ["batch_id"]


def test_cells_that_share_nothing_are_refused() -> None:
    both = cells([[1, 2]], "a", "G1 P1", np.asarray)
    other = cells([[1, 2]], "b", "X1 X2", np.asarray)
    with pytest.raises(InvalidDataError, match="expression cells to be among.*got 'X1', 'X2'"):
        organize_multiome_anndatas(both, other)
    twice = cells([[1, 2]], "b", "G1 G2", np.asarray)
    twice.var_names = ["G1", "G1"]
    with pytest.raises(InvalidDataError, match="'G1' occur twice"):
        organize_multiome_anndatas(both, twice)
    with pytest.raises(InvalidDataError, match="got NoneType"):
        organize_multiome_anndatas(None)  # type: ignore[arg-type]
