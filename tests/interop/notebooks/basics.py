"""First analysis of blood cells: counts to latent, clusters and normalized expression."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 0
scvi.settings.dl_num_workers = 0
adata = anndata.read_h5ad(DATA / "pbmc3k.h5ad")

sc.pp.filter_genes(adata, min_counts=3)
adata.layers["counts"] = adata.X.copy()
sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)
adata.raw = adata
scvi.data.poisson_gene_selection(adata, layer="counts", n_top_genes=800, silent=True)
adata = adata[:, adata.var["highly_variable"]].copy()

scvi.model.SCVI.setup_anndata(adata, layer="counts")
model = scvi.model.SCVI(adata, n_layers=1, gene_likelihood="nb")
train_kwargs = {
    "max_epochs": 8,
    "early_stopping": True,
    "early_stopping_monitor": "elbo_validation",
    "early_stopping_patience": 5,
    "plan_kwargs": {"lr": 2e-3, "n_epochs_kl_warmup": 8},
}
model.train(accelerator="cpu", enable_progress_bar=False, **train_kwargs)

SCVI_LATENT_KEY = "X_scVI"
adata.obsm[SCVI_LATENT_KEY] = model.get_latent_representation()
adata.layers["scvi_normalized"] = model.get_normalized_expression(library_size=1e4)
sc.pp.neighbors(adata, use_rep=SCVI_LATENT_KEY)

model.save(FOLDER / "pbmc3k_model", overwrite=True, save_anndata=True)
again = scvi.model.SCVI.load(FOLDER / "pbmc3k_model", accelerator="cpu")
batch = again.adata_manager.get_from_registry(scvi.REGISTRY_KEYS.BATCH_KEY)

history = model.history
result = {
    "latent": list(adata.obsm[SCVI_LATENT_KEY].shape),
    "normalized": list(adata.layers["scvi_normalized"].shape),
    "sum": float(np.asarray(adata.layers["scvi_normalized"]).sum(1).mean()),
    "history": sorted(
        {"elbo_train", "elbo_validation", "reconstruction_loss_validation"} & set(history)
    ),
    "epochs": int(history["elbo_validation"].shape[0]),
    "fell": bool(
        history["elbo_validation"].iloc[-1].item() < history["elbo_validation"].iloc[0].item()
    ),
    "same": bool(np.allclose(again.get_latent_representation(), adata.obsm[SCVI_LATENT_KEY])),
    "n_batch": int(again.adata_manager.summary_stats.n_batch),
    "batches": np.unique(np.asarray(batch)).tolist(),
    "elbo": float(model.get_elbo(indices=model.validation_indices)),
    "reconstruction": float(
        model.get_reconstruction_error(indices=model.validation_indices)["reconstruction_loss"]
    ),
}
print(json.dumps(result))
