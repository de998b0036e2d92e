"""Synthetic counts: their form, their distribution, their seed."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from cellvae.data.synthetic import synthetic_iid
from cellvae.errors import InvalidOptionError


def test_the_default_has_the_parts_that_scvi_tools_makes() -> None:
    adata = synthetic_iid()
    assert adata.shape == (400, 100)
    assert adata.X.dtype == np.float32
    assert adata.var_names[:2].tolist() == ["gene_0", "gene_1"]
    assert adata.obs["batch"].value_counts().to_dict() == {"batch_0": 200, "batch_1": 200}
    assert adata.obs["labels"].cat.categories.tolist() == ["label_0", "label_1", "label_2"]
    assert adata.obsm["protein_expression"].shape == adata.obsm["accessibility"].shape == (400, 100)
    assert adata.uns["protein_names"][99] == "protein_99"
    assert set(adata.obsm) == {"protein_expression", "accessibility"}


def test_the_arguments_of_scvi_tools_come_in_its_order() -> None:
    names = list(inspect.signature(synthetic_iid).parameters)
    assert names == [
        "batch_size",
        "n_genes",
        "n_proteins",
        "n_regions",
        "n_batches",
        "n_labels",
        "dropout_ratio",
        "sparse_format",
        "generate_coordinates",
        "return_mudata",
        "seed",
        "batch_key",
        "labels_key",
        "rna_key",
        "gene_names_prefix",
        "protein_expression_key",
        "protein_names_key",
        "protein_names_prefix",
        "accessibility_key",
        "region_names_prefix",
        "coordinates_key",
        "rna_dist",
    ]


def test_counts_have_the_mean_and_variance_of_their_distribution() -> None:
    adata = synthetic_iid(batch_size=1000, n_genes=200, dropout_ratio=0.7)
    counts = adata.X.astype(float)
    mean, variance = 5 * 0.7 / 0.3, 5 * 0.7 / 0.3**2
    kept = 0.7 * (variance + mean**2) - (0.7 * mean) ** 2
    # Means of 400,000 counts: within five standard errors.
    assert abs(counts.mean() - 0.7 * mean) < 5 * np.sqrt(kept / counts.size)
    assert abs(counts.var() / kept - 1) < 0.02
    proteins = adata.obsm["protein_expression"].astype(float)
    assert abs(proteins.mean() - mean) < 5 * np.sqrt(variance / proteins.size)
    assert (counts == np.rint(counts)).all() and counts.min() == 0


def test_the_seed_decides_on_every_number() -> None:
    first, again, other = synthetic_iid(), synthetic_iid(), synthetic_iid(seed=1)
    np.testing.assert_array_equal(first.X, again.X)
    assert first.obs.equals(again.obs)
    assert (first.X != other.X).any()
    assert not first.obs["labels"].equals(other.obs["labels"])


@pytest.mark.parametrize("name", ["csr_matrix", "csc_matrix", "csr_array", "csc_array"])
def test_a_sparse_format_holds_the_same_counts(name: Any) -> None:
    adata, dense = synthetic_iid(sparse_format=name), synthetic_iid()
    matrices = [adata.X, adata.obsm["protein_expression"], adata.obsm["accessibility"]]
    others = [dense.X, dense.obsm["protein_expression"], dense.obsm["accessibility"]]
    for matrix, other in zip(matrices, others, strict=True):
        assert sparse.issparse(matrix) and type(matrix).__name__ == name
        np.testing.assert_array_equal(matrix.toarray(), other)


def test_parts_can_be_left_out_or_added() -> None:
    adata = synthetic_iid(
        3, n_genes=4, n_proteins=0, n_regions=0, n_batches=5, n_labels=0, generate_coordinates=True
    )
    assert adata.shape == (15, 4)
    assert adata.obs.columns.tolist() == ["batch"]
    assert set(adata.obsm) == {"coordinates"} and not adata.uns
    assert adata.obsm["coordinates"].shape == (15, 2)
    assert not synthetic_iid(10, dropout_ratio=0.0).X.any()


def test_every_part_can_have_another_name() -> None:
    adata, usual = (
        synthetic_iid(
            20,
            generate_coordinates=True,
            batch_key="donor",
            labels_key="type",
            gene_names_prefix="g",
            protein_expression_key="adt",
            protein_names_key="antibodies",
            protein_names_prefix="p",
            accessibility_key="atac",
            coordinates_key="xy",
        ),
        synthetic_iid(20, generate_coordinates=True),
    )
    assert adata.obs.columns.tolist() == ["donor", "type"]
    assert adata.obs["type"].tolist() == usual.obs["labels"].tolist()
    assert adata.var_names[1] == "g_1" and adata.uns["antibodies"][2] == "p_2"
    for name, other in (("adt", "protein_expression"), ("atac", "accessibility"), ("xy",) * 2):
        other = "coordinates" if other == "xy" else other
        np.testing.assert_array_equal(adata.obsm[name], usual.obsm[other])
    assert set(adata.obsm) == {"adt", "atac", "xy"}


def test_genes_can_be_normal() -> None:
    values = synthetic_iid(1000, n_genes=50, rna_dist="normal", dropout_ratio=1.0).X.astype(float)
    assert abs(values.mean() - 5) < 5 * 2 / np.sqrt(values.size)
    assert abs(values.std() / 2 - 1) < 0.02


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1; got 0"),
        ({"n_genes": 0}, "n_genes of at least 1; got 0"),
        ({"n_proteins": -1}, "n_proteins of at least 0; got -1"),
        ({"rna_dist": "poisson"}, "rna_dist to be 'nb' or 'normal'; got 'poisson'"),
        ({"dropout_ratio": 1.5}, "dropout_ratio from 0 to 1; got 1.5"),
        ({"sparse_format": "csr_matrx"}, r"got 'csr_matrx'\. Did you mean 'csr_matrix'"),
    ],
)
def test_arguments_out_of_range_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        synthetic_iid(**kwargs)


def test_a_mudata_without_its_package_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mudata", None)
    with pytest.raises(ImportError, match="Expected the package mudata.*pip install mudata"):
        synthetic_iid(return_mudata=True)


@pytest.mark.filterwarnings("ignore")
def test_a_mudata_has_the_counts_of_the_anndata() -> None:
    pytest.importorskip("mudata")
    both, adata = synthetic_iid(return_mudata=True), synthetic_iid()
    np.testing.assert_array_equal(both["rna"].X, adata.X)
    np.testing.assert_array_equal(both["protein_expression"].X, adata.obsm["protein_expression"])
    np.testing.assert_array_equal(both["accessibility"].X, adata.obsm["accessibility"])
    assert both.obs["batch"].tolist() == adata.obs["batch"].tolist()
    renamed = synthetic_iid(10, return_mudata=True, rna_key="genes", region_names_prefix="peak")
    assert {*renamed.mod} == {"genes", "accessibility", "protein_expression"}
    assert renamed["accessibility"].var_names[0] == "peak_0"
