"""A tiny module and cells for runs that take milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from cellvae.data import Split, synthetic_iid
from cellvae.data.storage.matrix_files.stored_matrix import StoredMatrix
from cellvae.data.storage.memory import CategoricalColumn, ColumnRows, DenseColumn
from cellvae.model.components.count_batch import CountBatch
from cellvae.model.scvi import SCVIConfig, SCVIModule, SCVISizes

N_CELLS, N_GENES = 60, 12


@pytest.fixture
def rows() -> ColumnRows[CountBatch]:
    counts = np.random.default_rng(0).poisson(2.0, (N_CELLS, N_GENES)).astype(np.float32)
    codes = np.zeros((N_CELLS, 1), dtype=np.int64)
    columns: dict[str, Any] = {
        "counts": DenseColumn(counts),
        "batch": CategoricalColumn(codes),
        "labels": CategoricalColumn(codes),
    }
    return ColumnRows(columns, CountBatch)


@pytest.fixture
def split() -> Split:
    cells = np.arange(N_CELLS, dtype=np.int64)
    return Split(train=cells[:50], validation=cells[50:], test=cells[:0])


@pytest.fixture
def module() -> SCVIModule:
    torch.manual_seed(0)
    return SCVIModule(SCVISizes(n_genes=N_GENES), SCVIConfig(n_hidden=8, n_latent=2))


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    made = synthetic_iid(batch_size=150, n_genes=40, n_proteins=0, n_regions=0, dropout_ratio=0.1)
    made.X[:, 0] = 1
    made.X = sparse.csr_matrix(made.X)
    assert made.X.nnz < 0.2 * 300 * 40  # batches are sparse
    return made


@pytest.fixture
def files(adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CELLVAE_DATA_DIR", str(tmp_path / "checked"))
    for number, first in enumerate(range(0, 300, 100)):
        adata[first : first + 100].copy().write_h5ad(tmp_path / f"part{number}.h5ad")
    return tmp_path


@pytest.fixture
def n_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of cells that are read, one for each time that a file is read."""
    numbers = []
    read = StoredMatrix.read

    def counted(matrix: StoredMatrix, chosen: np.ndarray) -> object:
        numbers.append(len(chosen))
        return read(matrix, chosen)

    monkeypatch.setattr(StoredMatrix, "read", counted)
    return numbers
