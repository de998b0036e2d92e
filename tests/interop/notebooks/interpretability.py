"""Which genes labels are told from."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 5
adata = anndata.read_h5ad(DATA / "pbmc3k.h5ad")
many = np.argsort(np.asarray(adata.X.sum(0)).ravel())[::-1][:600]
adata = adata[:, np.sort(many)].copy()
scvi.model.SCANVI.setup_anndata(
    adata, labels_key="cell_type", unlabeled_category="unlabeled", batch_key=None
)
model = scvi.model.SCANVI(adata, n_latent=10)
model.train(20, accelerator="cpu", enable_progress_bar=False)

kinds = adata.obs["cell_type"].astype(str).to_numpy()
predictions, attributions = model.predict(adata, ig_interpretability=True)
b_cells = np.where(kinds == "B")[0]
_, of_b = model.predict(indices=b_cells, ig_interpretability=True, ig_args={"n_steps": 20})
top = of_b.sort_values("attribution_mean", ascending=False).head(15)
soft, again = model.predict(soft=True, indices=b_cells[:20], ig_interpretability=True)

probabilities = scvi.model.SCANVI(adata, classifier_parameters={"logits": False})
probabilities.train(5, accelerator="cpu", enable_progress_bar=False)
sums = probabilities.predict(soft=True).sum(axis=1)

result = {
    "columns": list(attributions.columns),
    "rows": len(attributions),
    "features": sorted(attributions["feature"]) == sorted(adata.var_names),
    "cells": [int(attributions["cells"].iloc[0]), int(of_b["cells"].iloc[0])],
    "modality": str(attributions["modality"].iloc[0]),
    "falls": bool(attributions["attribution_mean"].is_monotonic_decreasing),
    "markers": sorted({"CD79A", "CD74", "HLA-DRA", "HLA-DRB1", "HLA-DPB1"} & set(top["feature"])),
    "soft": [list(soft.shape), len(again)],
    "sums": bool(np.allclose(sums, 1, atol=1e-5)),
    "right": float((predictions == kinds).mean()),
    "mean": float(of_b["attribution_mean"].sum()),
}
print(json.dumps(result))
