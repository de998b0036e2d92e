"""Memory of long passes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = """
import resource
import sys

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse

from cellvae.model import SCVI

torch.set_num_threads(1)
n_cells, n_genes = 3_000, 2_000
counts = sparse.random(n_cells, n_genes, density=0.05, format="csr", random_state=0)
counts.data[:] = 1
adata = AnnData(counts.astype(np.float32))
SCVI.setup_anndata(adata)
model = SCVI(adata, n_hidden=16)
model.is_trained = True

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def ask(n):
    kwargs = {"indices": slice(n), "batch_size": 128}
    if sys.argv[1] == "mean":
        return model.get_normalized_expression(n_samples=25, **kwargs)
    if sys.argv[1] == "file":
        return model.get_normalized_expression(out=f"{sys.argv[2]}/{n}.h5ad", **kwargs)
    return model.posterior_predictive_sample(**kwargs)

ask(300)
before = peak()
result = ask(n_cells)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
@pytest.mark.parametrize(
    ("what", "most"),
    # The mean has 24 MB and its draws 600 MB; the counts have about 4 MB.
    [("mean", 60), ("file", 20), ("counts", 50)],
)
def test_memory_holds_one_batch_and_the_result(what: str, most: float, tmp_path: object) -> None:
    command = [sys.executable, "-c", MEASURE, what, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < most, done.stdout
