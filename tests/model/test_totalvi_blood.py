"""Proteins mark the blood cells they are known for, in a model that was not told any cell type."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from cellvae.model import TOTALVI
from cellvae.settings import settings

pytestmark = pytest.mark.trains

HAVE = {
    "CD3": ["CD4+ T-cells", "CD8+ T-cells"],
    "CD19": ["B-cells"],
    "CD14": ["Monocytes"],
    "CD56": ["NK cells"],
    "CD8a": ["CD8+ T-cells"],
    "CD4": ["CD4+ T-cells", "Monocytes"],
}
LACK = {
    "CD3": ["B-cells", "Monocytes", "NK cells"],
    "CD19": ["CD4+ T-cells", "CD8+ T-cells", "Monocytes", "NK cells"],
    "CD14": ["B-cells", "CD4+ T-cells", "CD8+ T-cells", "NK cells"],
    "CD56": ["B-cells", "CD4+ T-cells", "Monocytes"],
    "CD8a": ["B-cells", "CD4+ T-cells", "Monocytes"],
    "CD4": ["B-cells", "NK cells"],
}
"""Types without a protein. Some NK cells have CD8 and some CD8 T cells CD56; CD8 T cells by their
genes include helper cells."""


@pytest.fixture(scope="module")
def foreground(shared_data: Path) -> pd.DataFrame:
    """Mean probability of the foreground, [cell types, proteins]."""
    blood = anndata.read_h5ad(shared_data / "pbmc_cite_10k_5k.h5ad")
    blood = blood[(blood.obs["batch"] == "PBMC10k") & (blood.obs["cell_type"] != "Unknown")]
    detected = np.asarray((blood.X > 0).sum(axis=0)).ravel()
    blood = blood[::4, np.sort(np.argsort(-detected)[:600])].copy()
    proteins = blood.obsm["protein_expression"]
    proteins.columns = [name.removesuffix("_TotalSeqB") for name in proteins]
    settings.seed = 0
    TOTALVI.setup_anndata(blood, protein_expression_obsm_key="protein_expression")
    model = TOTALVI(blood)
    model.train(max_epochs=60, enable_progress_bar=False)
    probability = model.get_protein_foreground_probability(n_samples=5, silent=True)
    return probability.groupby(blood.obs["cell_type"].astype(str).to_numpy()).mean()


@pytest.mark.parametrize("protein", HAVE)
def test_a_protein_is_foreground_in_the_cells_that_have_it(
    foreground: pd.DataFrame, protein: str
) -> None:
    assert foreground.loc[HAVE[protein], protein].min() > 0.55


@pytest.mark.parametrize("protein", LACK)
def test_a_protein_is_background_in_the_cells_that_lack_it(
    foreground: pd.DataFrame, protein: str
) -> None:
    assert foreground.loc[LACK[protein], protein].max() < 0.4
