"""Whether a model draws counts like those that were measured."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 4
adata = anndata.read_h5ad(DATA / "pbmc3k.h5ad")[::4].copy()
adata.X = adata.X.toarray()
many = np.argsort(adata.X.sum(0))[::-1][:300]
adata = adata[:, np.sort(many)].copy()
scvi.model.SCVI.setup_anndata(adata, labels_key="cell_type")
model = scvi.model.SCVI(adata)
model.train(max_epochs=60, accelerator="cpu", enable_progress_bar=False)

# The name is the one that the calibration error is computed for.
ppc = scvi.criticism.PosteriorPredictiveCheck(adata, {"model1": model}, n_samples=6)
ppc.coefficient_of_variation("features")
ppc.coefficient_of_variation("cells")
ppc.calibration_error()
ppc.differential_expression(de_groupby="cell_type", p_val_thresh=0.2, n_top_genes_fallback=20)
cv = ppc.metrics["cv_gene"]
de = ppc.metrics["diff_exp"]["summary"].set_index("group")
changes = ppc.metrics["diff_exp"]["lfc_per_model_per_group"]["model1"]
scvi.criticism.create_criticism_report(model, save_folder=str(FOLDER))
card = json.loads((FOLDER / "metrics.json").read_text())

result = {
    "metrics": sorted({"cv_cell", "cv_gene", "calibration", "diff_exp"} & set(ppc.metrics)),
    "columns": sorted({"gene_f1", "lfc_mae", "roc_auc", "pr_auc", "n_cells"} & set(de.columns)),
    "cells": list(ppc.metrics["cv_cell"].shape),
    "changes": [sorted(changes["B"].columns), changes["B"].shape[0]],
    "card": {name: table.count("\n") > 3 for name, table in card.items()},
    "header": [word.strip() for word in card["cell_wise_cv"].split("\n")[0].split("|")[1:-1]],
    "varm": list(adata.varm["lfc_model"].shape),
    "obs": float(adata.obs["cv_cell_ratio"].mean()),
    "calibration": float(ppc.metrics["calibration"].loc["features", "model1"]),
    "cv": float(np.corrcoef(cv["Raw"], cv["model1"])[0, 1]),
    "f1": float(de["gene_f1"].astype(float).mean()),
    "pearson": float(de["lfc_pearson"].astype(float).mean()),
    "auc": float(de["roc_auc"].astype(float).mean()),
}
print(json.dumps(result))
