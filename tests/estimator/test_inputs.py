"""Counts in every form that an AnnData can hold, and cells other than the model's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data.storage.memory import DenseColumn
from cellvae.errors import DataMismatchError, InvalidDataError, UnknownKeyError
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def backed(adata: AnnData, folder: Path) -> AnnData:
    adata.write_h5ad(folder / "cells.h5ad")
    return anndata.read_h5ad(folder / "cells.h5ad", backed="r")


def with_counts(adata: AnnData, convert: Callable) -> AnnData:
    adata.X = convert(adata.X)
    return adata


def in_layer(adata: AnnData) -> AnnData:
    adata.layers["counts"] = sparse.csr_matrix(adata.X)
    adata.X = np.log1p(adata.X)
    return adata


def in_view(adata: AnnData) -> AnnData:
    whole = anndata.concat([adata[:9], adata], keys=["before", "own"], index_unique="-")
    return whole[9:]


def read_only(adata: AnnData) -> AnnData:
    """Cells whose arrays nobody may write to, as workers and mapped files have them."""
    adata.X = sparse.csr_matrix(adata.X)
    for array in (adata.X.data, adata.X.indices, adata.X.indptr):
        array.flags.writeable = False
    return adata


FORMS: dict[str, Callable[[AnnData, Path], AnnData]] = {
    "float64": lambda adata, _: with_counts(adata, lambda x: x.astype(np.float64)),
    "int64": lambda adata, _: with_counts(adata, lambda x: x.astype(np.int64)),
    "uint8": lambda adata, _: with_counts(adata, lambda x: x.astype(np.uint8)),
    "by column": lambda adata, _: with_counts(adata, np.asfortranarray),
    "csr_matrix": lambda adata, _: with_counts(adata, sparse.csr_matrix),
    "csr_array": lambda adata, _: with_counts(adata, sparse.csr_array),
    "csc_matrix": lambda adata, _: with_counts(adata, sparse.csc_matrix),
    "csc_array": lambda adata, _: with_counts(adata, sparse.csc_array),
    "csr of int32": lambda adata, _: with_counts(
        adata, lambda x: sparse.csr_matrix(x.astype(np.int32))
    ),
    "read-only csr": lambda adata, _: read_only(adata),
    "view": lambda adata, _: in_view(adata),
    "backed": backed,
    "backed csr": lambda adata, folder: backed(with_counts(adata, sparse.csr_matrix), folder),
    "layer": lambda adata, _: in_layer(adata),
}


@pytest.mark.parametrize("form", FORMS)
def test_training_and_latents_do_not_depend_on_the_form_of_the_counts(
    form: str,
    cells: Callable[..., AnnData],
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
    tmp_path: Path,
) -> None:
    setup = {"batch_key": "batch"}
    expected = train(make(cells(), setup)).get_latent_representation()
    other = FORMS[form](cells(), tmp_path)
    if form == "layer":
        setup["layer"] = "counts"
    model = train(make(other, setup))
    assert np.array_equal(model.get_latent_representation(), expected)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "int64", "view", "backed csr"])
def test_other_cells_in_another_form_have_the_same_latents(
    form: str, cells: Callable[..., AnnData], trained: SCVI, tmp_path: Path
) -> None:
    other = FORMS[form](cells(), tmp_path)
    expected = trained.get_latent_representation()
    assert np.array_equal(trained.get_latent_representation(other), expected)


def test_genes_are_matched_by_name_whatever_their_order(
    cells: Callable[..., AnnData], trained_with_everything: SCVI
) -> None:
    model = trained_with_everything
    expected = model.get_latent_representation()
    order = np.random.default_rng(1).permutation(12)
    assert np.array_equal(model.get_latent_representation(cells()[:, order]), expected)


def test_genes_that_the_model_does_not_know_are_ignored(
    cells: Callable[..., AnnData], trained: SCVI
) -> None:
    own = cells()
    more = AnnData(np.full((own.n_obs, 3), 7.0, dtype=np.float32), obs=own.obs[[]])
    more.var_names = ["new0", "new1", "new2"]
    joined = anndata.concat([more, own], axis=1, merge="same")
    joined.obs = own.obs
    assert np.array_equal(
        trained.get_latent_representation(joined), trained.get_latent_representation()
    )


def test_missing_genes_are_refused_by_name(cells: Callable[..., AnnData], trained: SCVI) -> None:
    with pytest.raises(DataMismatchError, match=r"12 genes .* got 10: missing 'gene3', 'gene7'"):
        trained.get_latent_representation(
            cells()[:, [i for i in range(12) if i not in (3, 7)]].copy()
        )


def test_unknown_batches_are_refused_by_name(cells: Callable[..., AnnData], trained: SCVI) -> None:
    other = cells()
    other.obs["batch"] = other.obs["batch"].cat.rename_categories({"b1": "new"})
    with pytest.raises(DataMismatchError, match="'new' in 23 cells"):
        trained.get_latent_representation(other)


def test_categories_are_matched_by_value_whatever_their_codes(
    cells: Callable[..., AnnData], trained_with_everything: SCVI
) -> None:
    model = trained_with_everything
    other = cells()
    other.obs["batch"] = other.obs["batch"].cat.reorder_categories(["b2", "b0", "b1"])
    other.obs["label"] = other.obs["label"].astype("category")
    only = other[other.obs["batch"] == "b2"].copy()
    expected = model.get_latent_representation()
    assert np.array_equal(model.get_latent_representation(other), expected)
    np.testing.assert_allclose(
        model.get_latent_representation(only), expected[2::3], rtol=1e-5, atol=1e-6
    )


def test_columns_that_the_model_reads_have_to_be_there(
    cells: Callable[..., AnnData], trained_with_everything: SCVI
) -> None:
    other = cells()
    del other.obs["size"]
    with pytest.raises(UnknownKeyError, match="'size'"):
        trained_with_everything.get_latent_representation(other)


def test_wrong_counts_of_other_cells_are_refused(
    cells: Callable[..., AnnData], trained: SCVI
) -> None:
    other = cells()
    other.X[2, 1] = np.nan
    with pytest.raises(InvalidDataError, match="cell 'cell2', gene 'gene1'"):
        trained.get_latent_representation(other)


def test_asking_about_other_cells_leaves_them_alone(
    cells: Callable[..., AnnData], trained: SCVI
) -> None:
    other = cells()
    trained.get_latent_representation(other)
    trained.get_elbo(other)
    assert not other.uns
    assert other.obs.equals(cells().obs)


def test_cells_that_left_the_anndata_leave_the_model_too(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    adata = cells()
    model = train(make(adata))
    before = model.get_latent_representation()
    kept = np.arange(70) % 5 != 0
    adata._inplace_subset_obs(kept)  # what scanpy.pp.filter_cells does
    after = model.get_latent_representation()
    np.testing.assert_allclose(after, before[kept], rtol=1e-5, atol=1e-6)
    train(model)
    parts = np.concatenate([model.train_indices, model.validation_indices])
    assert np.array_equal(np.sort(parts), np.arange(56))
    split = model.train_indices
    train(model, seed=8)
    assert np.array_equal(split, model.train_indices)


def test_genes_that_left_the_anndata_are_still_there_for_the_model(
    cells: Callable[..., AnnData], make: Callable[..., SCVI], train: Callable[..., SCVI]
) -> None:
    adata = cells()
    model = train(make(adata))
    before = model.get_latent_representation()
    adata._inplace_subset_var(np.arange(12) > 3)  # what highly_variable_genes(subset=True) does
    assert np.array_equal(model.get_latent_representation(), before)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_counts_that_were_normalised_in_place_are_noticed(adata: AnnData, form: Callable) -> None:
    import scanpy as sc

    adata.X = form(adata.X.astype(np.float32))
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=8, n_latent=2)
    model.train(1, enable_progress_bar=False)
    model.get_latent_representation()
    kept = adata.X.copy()
    sc.pp.log1p(adata)
    now = adata.X.data if sparse.issparse(adata.X) else adata.X
    assert np.shares_memory(now, model_values(model))
    with pytest.raises(DataMismatchError, match="changed in place after the model was made"):
        model.get_latent_representation()
    with pytest.raises(DataMismatchError, match="changed in place"):
        model.train(1, enable_progress_bar=False)
    if sparse.issparse(adata.X):
        adata.X.data[:] = kept.data
    else:
        adata.X[:] = kept
    model.get_latent_representation()


def model_values(model: SCVI) -> np.ndarray:
    assert model.rows is not None
    column = model.rows.columns["counts"]
    return column.values if isinstance(column, DenseColumn) else column.data  # type: ignore[union-attr]
