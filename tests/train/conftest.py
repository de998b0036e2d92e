"""A tiny module and cells for runs that take milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cellvae.data import Split
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
