"""Real cells that come with scanpy, their counts brought back exactly."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cellvae.data.datasets.pbmc68k import pbmc68k_reduced


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_counts_are_whole_and_give_the_shipped_values_back() -> None:
    scanpy = pytest.importorskip("scanpy")
    adata, shipped = pbmc68k_reduced(), scanpy.datasets.pbmc68k_reduced()
    assert adata.shape == (700, 765)
    assert adata.X.format == "csr" and adata.X.dtype == np.float32
    values = adata.X.data
    assert (values == np.rint(values)).all()
    assert (values.min(), values.max(), adata.X.nnz) == (1, 259, shipped.raw.X.nnz)
    depth = np.repeat(shipped.obs["n_counts"].to_numpy(np.float64), np.diff(adata.X.indptr))
    again = np.log1p(values.astype(np.float64) / depth * 1e4)
    # Shipped with three digits.
    assert np.abs(again - shipped.raw.X.data).max() < 0.00051
    assert adata.var_names.equals(shipped.raw.var_names)
    assert adata.obs["bulk_labels"].nunique() == 10
    assert adata.obs["bulk_labels"].tolist() == shipped.obs["bulk_labels"].tolist()
    assert adata.obs.columns.tolist() == ["bulk_labels", "louvain"]
    assert not adata.obsm and not adata.uns and adata.raw is None


def test_without_scanpy_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scanpy", None)
    with pytest.raises(ImportError, match="Expected the package scanpy.*pip install scanpy"):
        pbmc68k_reduced()
