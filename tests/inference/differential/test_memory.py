"""Memory of differential expression, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = """
import resource

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.model import SCVI

torch.set_num_threads(1)
n_cells, n_genes = 2_000, 2_000
counts = sparse.random(n_cells, n_genes, density=0.05, format="csr", random_state=0)
counts.data[:] = 1
adata = AnnData(counts.astype(np.float32))
adata.obs["few"] = (np.arange(n_cells) % 2).astype(str)
adata.obs["many"] = (np.arange(n_cells) % 10).astype(str)
SCVI.setup_anndata(adata)
model = SCVI(adata, n_hidden=16)
model.is_trained = True

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

start = peak()
model.differential_expression(groupby="few", n_samples_overall=1_500)
before = peak()
model.differential_expression(groupby="many", n_samples_overall=1_500)
print(before - start, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
def test_memory_does_not_grow_with_the_groups() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    two, ten = map(float, done.stdout.split())
    # Draws of two populations have 24 MB, those of all twenty would have 240 MB.
    assert two < 150, done.stdout
    assert ten < 40, done.stdout
