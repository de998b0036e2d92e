"""One question to a model of either package: PACKAGE QUESTION CELLS THREADS."""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from clock import peak_mib
from scipy import sparse

N_GENES, N_GROUPS, DENSITY = 2_000, 10, 0.15


def cells(n_cells: int) -> anndata.AnnData:
    """Sparse counts of ten groups that each have some genes of their own."""
    random = np.random.default_rng(0)
    group = random.integers(0, N_GROUPS, n_cells)
    means = random.gamma(0.3, 1.0, (N_GROUPS, N_GENES)) * 0.6
    counts = sparse.csr_matrix(random.poisson(means[group]).astype(np.float32))
    obs = pd.DataFrame({"group": [f"g{g}" for g in group]}, index=[f"c{i}" for i in range(n_cells)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    return anndata.AnnData(counts, obs=obs, var=var)


def rss_mib() -> float:
    """Resident memory now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def answer(model: Any, question: str) -> Any:
    """Ask with the arguments that both packages have."""
    if question == "expression":
        return model.get_normalized_expression(n_samples=10, return_numpy=True)
    if question == "differential":
        return model.differential_expression(groupby="group", mode="change", silent=True)
    if question == "simulated":
        return model.posterior_predictive_sample(n_samples=2)
    return model.get_latent_representation()


def main() -> None:
    side, question, n_cells, threads = sys.argv[1:5]
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(threads))
    package = importlib.import_module(side)
    package.settings.seed = 0
    adata = cells(int(n_cells))
    package.model.SCVI.setup_anndata(adata)
    model = package.model.SCVI(adata)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    # What is loaded at first use is no part of the answer.
    model.get_latent_representation(indices=np.arange(64))
    Path("/proc/self/clear_refs").write_text("5")
    before = rss_mib()
    begin = time.perf_counter()
    result = answer(model, question)
    seconds = time.perf_counter() - begin
    extra = peak_mib() - before
    print(json.dumps({"seconds": seconds, "extra_mib": extra, "kind": type(result).__name__}))


if __name__ == "__main__":
    main()
