"""Weights and marginal likelihoods of scvi-tools for a few cells, written to `marginal.npz`.

Run by hand, in an environment with scvi-tools==1.4.2:

    python tests/parity/write_marginal.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scvi
import torch
from anndata import AnnData

OUT = Path(__file__).with_name("marginal.npz")


def main() -> None:
    """Train for a few epochs, and write what the test reads."""
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(2.0, 2.0, (2, 15))[np.arange(60) % 2]).astype(np.float32)
    kept = {"counts": counts}
    for name, observed in (("observed", True), ("latent", False)):
        scvi.settings.seed = 0
        adata = AnnData(counts.copy())
        adata.obs["batch"] = np.array(["a", "b"])[np.arange(60) % 2]
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        model = scvi.model.SCVI(
            adata, n_hidden=8, n_latent=2, use_observed_lib_size=observed, gene_likelihood="nb"
        )
        plan = {"lr": 0.01, "n_epochs_kl_warmup": 1}
        model.train(max_epochs=100, accelerator="cpu", plan_kwargs=plan)
        likelihood = model.get_marginal_ll(
            n_mc_samples=20_000, n_mc_samples_per_pass=100, return_mean=False, batch_size=60
        )
        kept[f"{name}/marginal"] = np.asarray(likelihood, dtype=np.float64)
        for key, tensor in model.module.state_dict().items():
            kept[f"{name}/weights/{key}"] = tensor.numpy()
    np.savez_compressed(OUT, **kept)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
