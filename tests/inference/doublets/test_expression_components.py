"""Principal components of cells and simulated doublets: against a dense decomposition."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from cellvae.inference.doublets import expression_components
from cellvae.inference.doublets.expression_components import (
    ExpressionComponents,
    log_normalize,
    principal_axes,
)
from cellvae.model import SCVI


def cells_of_two_types(n: int = 120) -> anndata.AnnData:
    random = np.random.default_rng(0)
    rates = np.where(np.arange(40) < 20, 5.0, 0.5)
    means = np.stack([rates, rates[::-1]])[np.arange(n) % 2]
    return anndata.AnnData(sparse.csr_matrix(random.poisson(means).astype(np.float32)))


def rows_of(adata: anndata.AnnData) -> Any:
    SCVI.setup_anndata(adata)
    return SCVI(adata, n_latent=2, n_hidden=4).rows


def test_components_are_those_of_a_dense_decomposition() -> None:
    adata = cells_of_two_types()
    rows = rows_of(adata)
    cells = np.arange(60, 120)
    found = ExpressionComponents.fit(rows, cells)
    counts = adata.X.toarray()[cells].astype(np.float64)
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    left, values, _ = np.linalg.svd(logs - logs.mean(axis=0), full_matrices=False)
    expected = (left * values)[:, :20]
    components = found.project(rows.take(torch.from_numpy(cells)).counts).numpy()
    assert components.shape == (60, 20)
    signs = np.sign((components * expected).sum(axis=0))
    np.testing.assert_allclose(components * signs, expected, rtol=1e-3, atol=1e-3)


def test_axes_of_many_cells_are_fitted_to_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(cells_of_two_types())
    whole = ExpressionComponents.fit(rows, np.arange(120))
    monkeypatch.setattr(expression_components, "MAX_FITTED_CELLS", 80)
    some, again = (ExpressionComponents.fit(rows, np.arange(120), seed=1) for _ in range(2))
    np.testing.assert_array_equal(some.axes, again.axes)
    assert not np.array_equal(some.axes, whole.axes)
    assert abs(some.axes[:, 0] @ whole.axes[:, 0]) > 0.99  # both types are told apart by the first


def test_few_genes_have_fewer_components_and_empty_cells_are_zero() -> None:
    axes, mean = principal_axes(sparse.csr_matrix(np.eye(5, 3)), 20)
    assert axes.shape == (3, 2)
    np.testing.assert_allclose(mean, 0.2)
    assert principal_axes(sparse.csr_matrix(np.ones((5, 1))), 20)[0].shape == (1, 0)
    counts = rows_of(cells_of_two_types(n=4)).take(torch.arange(4)).counts
    empty = torch.zeros(1, 40)
    assert log_normalize(empty).abs().sum() == 0
    dense = counts.to_dense() if hasattr(counts, "to_dense") else counts
    np.testing.assert_allclose(log_normalize(dense).expm1().sum(dim=1), 1e4, rtol=1e-5)
