"""Answers of scvi-tools about expression, written to `expression.npz` for the test of parity.

Run by hand, in an environment with scvi-tools==1.4.2, when an answer is added:

    python tests/parity/write_expression.py
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import scvi
import torch

FILE = Path(__file__).parent / "expression.npz"
N_CELLS, N_GENES, N_SAMPLES = 40, 12, 2_000


def cells() -> anndata.AnnData:
    """Counts of two kinds of cells in three batches."""
    random = np.random.default_rng(0)
    means = random.gamma(1.0, 4.0, (2, N_GENES))[np.arange(N_CELLS) % 2]
    adata = anndata.AnnData(random.poisson(means).astype(np.float32))
    adata.obs_names = [f"cell{i}" for i in range(N_CELLS)]
    adata.var_names = [f"gene{i}" for i in range(N_GENES)]
    adata.obs["batch"] = np.array(["b0", "b1", "b2"])[np.arange(N_CELLS) % 3]
    return adata


def main() -> None:
    if scvi.__version__ != "1.4.2":
        raise SystemExit(f"Expected scvi-tools 1.4.2; got {scvi.__version__}.")
    scvi.settings.seed = 0
    adata = cells()
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, n_hidden=8, n_latent=3, use_observed_lib_size=False)
    model.train(max_epochs=60, batch_size=20, accelerator="cpu", plan_kwargs={"lr": 0.01})
    ask = model.get_normalized_expression
    kwargs = {"n_samples": N_SAMPLES, "return_numpy": True}
    parameters = model.get_likelihood_parameters(n_samples=N_SAMPLES, give_mean=True)
    predictive = model.posterior_predictive_sample(n_samples=N_SAMPLES).todense()
    correlation = model.get_feature_correlation_matrix
    answers = {
        "share": ask(**kwargs),
        "latent": ask(library_size="latent", **kwargs),
        "batches": ask(transform_batch=["b0", "b2"], library_size=1e4, **kwargs),
        "overall": ask(n_samples_overall=20_000, return_numpy=True).mean(axis=0),
        "library": model.get_latent_library_size(),
        "predictive_mean": predictive.mean(axis=-1),
        "predictive_zero": (predictive == 0).mean(axis=-1),
        "pearson": correlation(n_samples=N_SAMPLES, correlation_type="pearson").to_numpy(),
        "spearman": correlation(n_samples=N_SAMPLES).to_numpy(),
        **{f"parameter_{name}": values for name, values in parameters.items()},
    }
    weights = {
        f"weight {name}": tensor
        for name, tensor in model.module.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    arrays = {name: np.asarray(value) for name, value in (answers | weights).items()}
    np.savez_compressed(
        FILE, counts=adata.X, batch=adata.obs["batch"].to_numpy(dtype="U"), **arrays
    )


if __name__ == "__main__":
    main()
