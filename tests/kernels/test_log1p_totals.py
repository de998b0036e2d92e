"""Logarithms of counts and totals of cells, against numpy in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from cellvae.core.csr_batch import CSRBatch
from cellvae.kernels import log1p_totals
from cellvae.model.components.count_features import log1p_and_totals
from cellvae.settings import settings


def batch(matrix: sparse.csr_matrix) -> CSRBatch:
    return CSRBatch.from_numpy(matrix.data, matrix.indices, matrix.indptr, matrix.shape[1])


@pytest.mark.parametrize("kind", ["counts", "fractions", "huge"])
def test_values_are_those_of_numpy(kind: str) -> None:
    rng = np.random.default_rng(0)
    values = {
        "counts": rng.poisson(2.0, (45, 301)),
        "fractions": rng.random((45, 301)) ** 8,
        "huge": 10.0 ** rng.integers(0, 30, (45, 301)),
    }[kind].astype(np.float32)
    values[3] = values[44] = 0
    values[:, ::3] = 0
    counts = batch(sparse.csr_matrix(values))
    features, totals = log1p_totals(counts)
    np.testing.assert_allclose(
        features.to_dense(), np.log1p(values.astype(np.float64)), rtol=3e-7, atol=0
    )
    exact = values.sum(axis=1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(totals, exact, rtol=1e-6)
    if kind == "counts":
        assert np.array_equal(totals, exact)
    assert features.indices is counts.indices and totals.shape == (45, 1)


def test_what_is_no_count_is_not_finite() -> None:
    values = torch.tensor([math.nan, -1.5, math.inf, 1.0])
    counts = CSRBatch(values, torch.arange(4, dtype=torch.int32), torch.tensor([0, 4]), 4)
    logarithms = log1p_totals(counts)[0].values
    assert torch.isfinite(logarithms).tolist() == [False, False, False, True]


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
def test_dense_and_sparse_counts_have_the_same_features(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.values, "kernels", kernels)
    values = torch.poisson(torch.rand(20, 300), generator=torch.Generator().manual_seed(0))
    features, totals = log1p_and_totals(batch(sparse.csr_matrix(values.numpy())))
    dense, dense_totals = log1p_and_totals(values)
    assert isinstance(features, CSRBatch) and isinstance(dense, torch.Tensor)
    torch.testing.assert_close(features.to_dense(), dense, rtol=3e-7, atol=0)
    assert torch.equal(totals, dense_totals)
