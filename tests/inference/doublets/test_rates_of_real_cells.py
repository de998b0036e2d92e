"""Rates that are estimated of blood cells with known numbers of doublets mixed in."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from cellvae.model import SCVI, SOLO

pytestmark = [pytest.mark.trains, pytest.mark.slow]
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def estimated_rate(counts: sparse.csr_matrix) -> float:
    """Rate of doublets among cells; it depends on the counts alone, so networks may be poor."""
    adata = anndata.AnnData(counts)
    SCVI.setup_anndata(adata)
    vae = SCVI(adata, n_latent=2, n_hidden=8)
    vae.train(max_epochs=1, seed=0, **QUIET)
    solo = SOLO.from_scvi_model(vae)
    solo.train(max_epochs=1, seed=0, **QUIET)
    return float(solo.get_doublet_rate().iloc[0])


@pytest.fixture(scope="module")
def counts(shared_data: Path) -> sparse.csr_matrix:
    """Counts of 2,700 cells, of the 1,500 genes that vary most."""
    adata = anndata.read_h5ad(shared_data / "pbmc3k.h5ad")
    counts = sparse.csr_matrix(adata.X)
    logs = counts.log1p().toarray()
    return counts[:, np.sort(np.argsort(-logs.var(axis=0))[:1500])]


@pytest.fixture(scope="module")
def rate_before(counts: sparse.csr_matrix) -> float:
    """Rate of the cells themselves."""
    return estimated_rate(counts)


def test_cells_have_as_many_doublets_as_the_instrument_makes(rate_before: float) -> None:
    # 10x Genomics: about .8 % for each 1,000 cells recovered.
    assert rate_before == pytest.approx(0.008 * 2.7, abs=0.01)


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.25])
def test_the_rate_is_within_two_points(
    counts: sparse.csr_matrix, rate_before: float, rate: float
) -> None:
    order = np.random.default_rng(1).permutation(counts.shape[0])
    n = round(rate / (1 + rate) * len(order))
    first, second = order[:n], order[n : 2 * n]
    mixed = sparse.vstack([counts[order[2 * n :]], counts[first] + counts[second]]).tocsr()
    true = n / mixed.shape[0]
    expected = true + (1 - true) * rate_before
    assert estimated_rate(mixed) == pytest.approx(expected, abs=0.02)
