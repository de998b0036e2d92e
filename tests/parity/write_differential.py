"""Differential expression of scvi-tools, written to `differential.npz` for the test of parity.

Run by hand, in an environment with scvi-tools==1.4.2, when an answer is added:

    python tests/parity/write_differential.py
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import scvi
import torch

FILE = Path(__file__).parent / "differential.npz"
N_CELLS, N_GENES, N_DRAWS = 90, 40, 5_000
COLUMNS = {
    "change": ["proba_de", "lfc_mean", "scale1", "scale2", "pseudocounts"],
    "vanilla": ["proba_m1", "scale1", "scale2"],
}
STATS = [
    f"{name}{i}"
    for name in ("raw_mean", "non_zeros_proportion", "raw_normalized_mean")
    for i in (1, 2)
]


def cells() -> anndata.AnnData:
    """Counts of three kinds of cells, of which most genes differ little, in two batches."""
    random = np.random.default_rng(0)
    base = random.gamma(1.0, 4.0, N_GENES)
    base[:6] = 0.004
    means = (base * random.lognormal(0, 0.6, (3, N_GENES)))[np.arange(N_CELLS) % 3]
    adata = anndata.AnnData(random.poisson(means).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(N_CELLS)]
    adata.var_names = [f"gene{i}" for i in range(N_GENES)]
    adata.obs["batch"] = np.array(["b0", "b1"])[np.arange(N_CELLS) // 3 % 2]
    adata.obs["kind"] = np.array(["x", "y", "z"])[np.arange(N_CELLS) % 3]
    return adata


def main() -> None:
    if scvi.__version__ != "1.4.2":
        raise SystemExit(f"Expected scvi-tools 1.4.2; got {scvi.__version__}.")
    scvi.settings.seed = 0
    adata = cells()
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, n_hidden=16, n_latent=4)
    model.train(max_epochs=60, batch_size=30, accelerator="cpu", plan_kwargs={"lr": 0.01})
    asked = {
        "change": {"groupby": "kind", "mode": "change"},
        "two": {"groupby": "kind", "mode": "change", "test_mode": "two", "pseudocounts": 1e-4},
        "corrected": {"groupby": "kind", "mode": "change", "batch_correction": True},
        "vanilla": {"groupby": "kind", "mode": "vanilla", "group1": "x", "group2": "y"},
    }
    arrays: dict[str, np.ndarray] = {}
    for name, kwargs in asked.items():
        table = model.differential_expression(n_samples_overall=N_DRAWS, silent=True, **kwargs)
        for group, part in table.groupby("group1"):
            part = part.loc[adata.var_names]
            wanted = COLUMNS[kwargs["mode"]] + (STATS if name == "change" else [])
            for column in wanted:
                arrays[f"{name} {group} {column}"] = part[column].to_numpy()
    for name, tensor in model.module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            arrays[f"weight {name}"] = tensor.numpy()
    labels = {key: adata.obs[key].to_numpy(dtype="U") for key in ("batch", "kind")}
    np.savez_compressed(FILE, counts=adata.X, **labels, **arrays)


if __name__ == "__main__":
    main()
