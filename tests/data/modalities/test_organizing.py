"""Proteins beside genes, and cells of several modalities put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from cellvae.data import (
    organize_cite_seq_10x,
    organize_multimodal,
    organize_multiome_anndatas,
)
from cellvae.errors import InvalidDataError, UnknownKeyError
from cellvae.model import MULTIVI


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


def three_parts(
    wrap: Callable[[Any], Any] = sparse.csr_matrix, column: str = "feature_types"
) -> Any:
    """Multiome cells whose features are mixed, cells with genes and cells with regions."""
    both = cells([[1, 2, 3, 4], [5, 6, 7, 8]], "a b", "P1 G2 P2 G1", wrap)
    both.var[column] = ["Peaks", "Gene Expression", "Peaks", "Gene Expression"]
    rna = cells([[9, 10, 11]], "a", "G1 G2 G9", wrap)
    atac = cells([[12, 13], [14, 15]], "a c", "P2 P1", wrap)
    return both, rna, atac


@pytest.mark.parametrize("column", ["feature_types", "modality"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_genes_are_the_first_features_and_cells_are_those_of_all(wrap: Any, column: str) -> None:
    both, rna, atac = three_parts(wrap, column)
    both.obs["donor"] = pd.array([1, None], dtype="Int64")
    found = organize_multimodal(both, rna, atac)
    assert found.var_names.tolist() == ["G2", "G1", "P1", "P2"]
    assert found.var["feature_types"].tolist() == ["Gene Expression"] * 2 + ["Peaks"] * 2
    dense = found.X.toarray() if sparse.issparse(found.X) else found.X
    assert dense.tolist() == [
        [2, 4, 1, 3],
        [6, 8, 5, 7],
        [10, 9, 0, 0],
        [0, 0, 13, 12],
        [0, 0, 15, 14],
    ]
    assert sparse.issparse(found.X) == sparse.issparse(both.X)
    assert found.obs_names.tolist() == [
        "a_paired",
        "b_paired",
        "a_expression",
        "a_accessibility",
        "c_accessibility",
    ]
    kinds = ["paired", "paired", "expression", "accessibility", "accessibility"]
    assert found.obs["modality"].tolist() == kinds
    assert both.var_names.tolist() == ["P1", "G2", "P2", "G1"]
    assert not found.is_view


def test_a_model_reads_the_organized_cells() -> None:
    found = organize_multimodal(*three_parts())
    MULTIVI.setup_anndata(found, batch_key="modality")
    model = MULTIVI(found, n_hidden=4, n_latent=2)
    assert model.registration.axes["genes"].features == ("G2", "G1")
    assert dict(model.registration.modality_cells) == {
        "genes + regions": 2,
        "genes": 1,
        "regions": 2,
    }


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_names_of_cells_are_made_unique_and_files_are_read(tmp_path: Path) -> None:
    both, rna, atac = three_parts()
    both.obs_names = ["a", "a"]
    both.write_h5ad(tmp_path / "both.h5ad")
    found = organize_multimodal(read_h5ad(tmp_path / "both.h5ad", backed="r"), rna[:, :2], atac)
    assert found.obs_names[:2].tolist() == ["a_paired", "a_paired-1"]
    assert found.X.sum() == both.X.sum() + 19 + atac.X.sum()
    assert both.X[:, :].dtype == found.X.dtype


def test_features_that_do_not_fit_are_named() -> None:
    both, rna, atac = three_parts()
    with pytest.raises(InvalidDataError, match="2 genes of multi in rna; got 1: missing 'G2'"):
        organize_multimodal(both, rna[:, [0, 2]])
    filled = organize_multimodal(both, rna[:, [0, 2]], fill_missing=True)
    assert filled.X.toarray()[2].tolist() == [0, 9, 0, 0]
    renamed = atac.copy()
    renamed.var_names = ["P2x", "P1"]
    with pytest.raises(InvalidDataError, match="missing 'P2'. Did you mean 'P2x'"):
        organize_multimodal(both, None, renamed)
    with pytest.raises(InvalidDataError, match="only genes in rna; got 2 features .*'P2', 'P1'"):
        organize_multimodal(both, rna=atac)
    with pytest.raises(InvalidDataError, match="missing 'G2', 'G1'"):
        organize_multimodal(both, cells([[1]], "x", "Z", np.asarray), fill_missing=True)
    both.var["feature_types"] = ["Peak", "Gene Expression", "Peak", "Gene Expression"]
    with pytest.raises(InvalidDataError, match="got 'Peak'. Did you mean 'Peaks'"):
        organize_multimodal(both)
    del both.var["feature_types"]
    with pytest.raises(UnknownKeyError, match="multi.var\\['feature_types'\\]"):
        organize_multimodal(both)
    with pytest.raises(InvalidDataError, match="got dict"):
        organize_multimodal({})  # type: ignore[arg-type]
