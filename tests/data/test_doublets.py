"""Simulated doublets: pairs of one batch, and what their covariates are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import cellvae
from cellvae.data.doublets import DoubletRows, draw_parents
from cellvae.errors import InvalidDataError, InvalidOptionError, NotSetUpError
from cellvae.model import SCANVI, SCVI, SOLO

SETUP: dict[str, Any] = {
    "batch_key": "batch",
    "labels_key": "labels",
    "size_factor_key": "size",
    "categorical_covariate_keys": ["donor"],
    "continuous_covariate_keys": ["age"],
}


@pytest.fixture
def cells() -> AnnData:
    adata = cellvae.data.synthetic_iid(batch_size=30, n_genes=8)
    random = np.random.default_rng(0)
    adata.obs["donor"] = pd.Categorical(random.choice(["d0", "d1"], 60))
    adata.obs["age"] = random.normal(size=60)
    adata.obs["size"] = random.uniform(0.5, 2, 60)
    return adata


def test_pairs_are_of_one_batch_and_never_of_one_cell() -> None:
    batch = np.array(["a", "b", "c"] * 20 + ["d"])
    parents = draw_parents(batch, np.arange(61), 3, seed=1)
    assert parents.shape == (180, 2)
    assert (batch[parents[:, 0]] == batch[parents[:, 1]]).all()
    assert (parents[:, 0] != parents[:, 1]).all()
    assert "d" not in batch[parents]
    only = draw_parents(batch, np.flatnonzero(batch == "b"), 3, seed=1)
    np.testing.assert_array_equal(only, parents[60:120])


def test_there_must_be_two_cells_and_a_ratio_above_zero() -> None:
    with pytest.raises(InvalidDataError, match="a batch with at least two cells"):
        draw_parents(np.array(["a", "b"]), np.arange(2), 2, seed=1)
    for ratio in (0, -1, np.inf, np.nan):
        with pytest.raises(InvalidOptionError, match="doublet_ratio to be a number above 0"):
            draw_parents(np.array(["a", "a"]), np.arange(2), ratio, seed=1)


def test_rows_and_anndata_of_doublets_are_the_same(cells: AnnData) -> None:
    SCVI.setup_anndata(cells, **SETUP)
    model = SCVI(cells, n_latent=2, n_hidden=4)
    parents = draw_parents(cells.obs["batch"].to_numpy(), np.arange(60), 2, seed=1)
    rows = DoubletRows(model.rows_of_model(), parents)
    made = SOLO.create_doublets(cells, 2)
    found = rows.take(torch.arange(len(rows)))
    read = model.read(made, new=True).take(torch.arange(made.n_obs))
    for name, values in found._asdict().items():
        if isinstance(values, torch.Tensor):
            torch.testing.assert_close(values, getattr(read, name), msg=name)
    first, second = parents[7]
    assert made.obs["age"].iloc[7] == pytest.approx(cells.obs["age"].iloc[[first, second]].mean())
    assert made.obs["size"].iloc[7] == pytest.approx(cells.obs["size"].iloc[[first, second]].sum())
    assert made.obs["donor"].iloc[7] == cells.obs["donor"].iloc[first]


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "layer", "view", "backed"])
def test_all_kinds_of_counts_give_the_same_doublets(
    kind: str, cells: AnnData, tmp_path: Path
) -> None:
    expected = np.asarray(cells.X)
    adata, layer = cells.copy(), None
    if kind in ("csr", "csc"):
        adata.X = getattr(sparse, f"{kind}_matrix")(adata.X)
    elif kind == "layer":
        layer = "counts"
        adata.layers["counts"], adata.X = adata.X.copy(), np.zeros(adata.shape, np.float32)
    elif kind == "view":
        adata = anndata.concat([cells, cells[:5]], index_unique="-")[:60]
    elif kind == "backed":
        adata.X = sparse.csr_matrix(adata.X)
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    SCVI.setup_anndata(adata, layer=layer, batch_key="batch")
    made = SOLO.create_doublets(adata, 1)
    values = made.X if layer is None else made.layers[layer]
    values = values.toarray() if sparse.issparse(values) else values
    parents = draw_parents(cells.obs["batch"].to_numpy(), np.arange(60), 1, seed=1)
    np.testing.assert_array_equal(values, expected[parents[:, 0]] + expected[parents[:, 1]])


def test_cells_can_be_chosen_and_other_models_are_found(cells: AnnData) -> None:
    with pytest.raises(NotSetUpError, match="set up for a model of counts"):
        SOLO.create_doublets(cells, 2)
    SCANVI.setup_anndata(cells, labels_key="labels", unlabeled_category="label_0")
    made = SOLO.create_doublets(cells, 2, indices=[3, 5, 9])
    allowed = {tuple(cells.X[i] + cells.X[j]) for i in (3, 5, 9) for j in (3, 5, 9) if i != j}
    assert made.n_obs == 6
    assert {tuple(row) for row in np.asarray(made.X)} <= allowed
