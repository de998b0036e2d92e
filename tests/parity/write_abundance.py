"""Aggregated posteriors and abundances of scvi-tools for a few cells, written to `abundance.npz`.

scvi-tools before 1.5 took the variances of the posteriors for their scales; the numbers are those
of a version that does not. Run by hand, in an environment with scvi-tools==1.5.1:

    python tests/parity/write_abundance.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scvi
import torch
from anndata import AnnData

OUT = Path(__file__).with_name("abundance.npz")


def main() -> None:
    """Train for a few epochs, and write what the test reads."""
    random = np.random.default_rng(0)
    donors = np.array(["x", "y", "z"])[np.arange(60) % 3]
    rates = random.gamma(1.0, 20.0, (3, 15))[np.arange(60) % 3]
    counts = random.poisson(rates).astype(np.float32)
    kept = {"counts": counts, "donors": donors}
    for latent in ("normal", "ln"):
        scvi.settings.seed = 0
        adata = AnnData(counts.copy())
        adata.obs["donor"] = donors
        scvi.model.SCVI.setup_anndata(adata)
        model = scvi.model.SCVI(adata, n_hidden=8, n_latent=3, latent_distribution=latent)
        plan = {"lr": 0.01, "n_epochs_kl_warmup": 1}
        model.train(200, "cpu", plan_kwargs=plan, enable_progress_bar=False)
        points = random.normal(size=(20, 3)).astype(np.float32)
        kept[f"{latent}/points"] = points
        for name, dof in (("normal", None), ("student", 3.0)):
            found = model.get_aggregated_posterior(indices=np.arange(0, 60, 4), dof=dof)
            kept[f"{latent}/{name}/density"] = found.log_prob(torch.from_numpy(points)).numpy()
            if latent == "ln":  # its means are drawn
                continue
            model.differential_abundance(adata, sample_key="donor", dof=dof)
            kept[f"{latent}/{name}/whole"] = adata.obsm["da_log_probs"][["x", "y", "z"]].to_numpy()
            part = adata[[9, 4, 5, 0]].copy()
            model.differential_abundance(adata, part, sample_key="donor", dof=dof)
            kept[f"{latent}/{name}/part"] = part.obsm["da_log_probs"][["x", "y", "z"]].to_numpy()
        for key, tensor in model.module.state_dict().items():
            kept[f"{latent}/weights/{key}"] = tensor.numpy()
    np.savez_compressed(OUT, **kept)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
