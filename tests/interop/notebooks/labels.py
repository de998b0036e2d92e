"""Labels of a few cells carried over to the others."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 2
adata = anndata.read_h5ad(DATA / "kang_ctrl_8donors.h5ad")[::8].copy()
truth = adata.obs["cell_type"].astype(str).to_numpy()
seen = np.random.default_rng(0).random(adata.n_obs) < 0.3
adata.obs["celltype_scanvi"] = np.where(seen, truth, "Unknown")

scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="celltype_scanvi")
scvi_model = scvi.model.SCVI(adata, n_layers=2, n_latent=15)
scvi_model.train(15, accelerator="cpu", enable_progress_bar=False)
scanvi_model = scvi.model.SCANVI.from_scvi_model(scvi_model, unlabeled_category="Unknown")
scanvi_model.train(
    max_epochs=8, n_samples_per_label=100, accelerator="cpu", enable_progress_bar=False
)
SCANVI_PREDICTION_KEY = "predictions_scanvi"
adata.obs[SCANVI_PREDICTION_KEY] = scanvi_model.predict(adata)
soft = scanvi_model.predict(soft=True)
told = adata.obs[SCANVI_PREDICTION_KEY].to_numpy() == truth

result = {
    "latent": list(scanvi_model.get_latent_representation(adata).shape),
    "soft": [list(soft.shape), bool(np.allclose(soft.sum(axis=1), 1, atol=1e-5))],
    "columns": sorted(str(name) for name in soft.columns) == sorted(set(truth[seen])),
    "right": float(told[~seen].mean()),
}
print(json.dumps(result))
