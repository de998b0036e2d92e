"""Genes that are zero more often than counting would make them."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from cellvae.data import poisson_gene_selection
from cellvae.errors import DataWarning, InvalidDataError, InvalidOptionError, UnknownKeyError

N_CELLS, N_GENES = 300, 20


@pytest.fixture
def adata() -> AnnData:
    """Counts of Poisson, but for genes 3 and 7, which only some of the cells have."""
    random = np.random.default_rng(0)
    counts = random.poisson(np.linspace(0.5, 3, N_GENES), (N_CELLS, N_GENES))
    for gene in (3, 7):
        counts[:, gene] = random.poisson(9, N_CELLS) * (random.random(N_CELLS) < 0.2)
    found = AnnData(counts.astype(np.float32))
    found.obs["batch"] = np.array(["a", "b"])[np.arange(N_CELLS) % 2]
    return found


def test_genes_that_some_cells_have_are_marked(adata: AnnData) -> None:
    assert poisson_gene_selection(adata, n_top_genes=2) is None
    assert np.flatnonzero(adata.var["highly_variable"]).tolist() == [3, 7]


def test_fractions_are_those_of_brute_force(adata: AnnData) -> None:
    table = poisson_gene_selection(adata, n_top_genes=5, inplace=False, minibatch_size=7)
    assert isinstance(table, pd.DataFrame) and "highly_variable" not in adata.var
    counts = np.asarray(adata.X, dtype=np.float64)
    shares, sizes = counts.sum(0) / counts.sum(), counts.sum(1)
    expected = np.exp(-np.outer(sizes, shares)).mean(0)
    observed = (counts == 0).mean(0)
    np.testing.assert_allclose(table["observed_fraction_zeros"], observed)
    np.testing.assert_allclose(table["expected_fraction_zeros"], expected)
    np.testing.assert_allclose(table["prob_zero_enrichment"], observed * (1 - expected))
    best = np.argsort(-observed * (1 - expected))[:5]
    assert set(np.flatnonzero(table["highly_variable"])) == set(best)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_sparse_counts_in_a_layer_give_the_same(adata: AnnData, kind: type) -> None:
    dense = poisson_gene_selection(adata, n_top_genes=4, inplace=False, batch_key="batch")
    adata.layers["counts"] = kind(adata.X)
    adata.X = np.zeros(adata.shape, dtype=np.float32)
    again = poisson_gene_selection(
        adata, layer="counts", n_top_genes=4, inplace=False, batch_key="batch", silent=True
    )
    pd.testing.assert_frame_equal(dense, again)


def test_batches_have_ranks_of_their_own(adata: AnnData) -> None:
    adata.X[adata.obs["batch"] == "b", 7] = 9  # no gene of some cells in b
    table = poisson_gene_selection(adata, n_top_genes=1, inplace=False, batch_key="batch")
    assert table["prob_zero_enriched_nbatches"].iloc[3] >= 1
    assert table["prob_zero_enriched_nbatches"].sum() == 2
    assert np.flatnonzero(table["highly_variable"]).tolist() == [3]


def test_others_can_be_dropped(adata: AnnData) -> None:
    names = adata.var_names[[3, 7]]
    poisson_gene_selection(adata, n_top_genes=2, subset=True)
    assert [*adata.var_names] == [*names] and adata.var["highly_variable"].all()


def test_what_cannot_be_ranked_is_refused(adata: AnnData, tmp_path: str) -> None:
    with pytest.raises(InvalidOptionError, match="at least 1; got 0"):
        poisson_gene_selection(adata, n_top_genes=0)
    with pytest.raises(UnknownKeyError, match="batch"):
        poisson_gene_selection(adata, batch_key="batches")
    half = AnnData(np.full((4, 3), 0.5, dtype=np.float32))
    with pytest.raises(InvalidDataError, match="whole numbers"):
        poisson_gene_selection(half)
    empty = AnnData(np.zeros((4, 3), dtype=np.float32))
    with (
        pytest.warns(DataWarning, match="every cell"),
        pytest.raises(InvalidDataError, match="counts above 0 in every batch"),
    ):
        poisson_gene_selection(empty)
    adata.write_h5ad(f"{tmp_path}/cells.h5ad")
    with pytest.raises(InvalidDataError, match="backed"):
        poisson_gene_selection(anndata.read_h5ad(f"{tmp_path}/cells.h5ad", backed="r"))
