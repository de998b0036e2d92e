"""Counts replaced by the posterior of each cell: questions are answered as before."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 7
adata = anndata.read_h5ad(DATA / "kang_ctrl_8donors.h5ad")[::10].copy()
scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
model = scvi.model.SCVI(adata, use_observed_lib_size=True)
model.train(max_epochs=15, accelerator="cpu", enable_progress_bar=False)

adata.obsm["X_scVI"] = model.get_latent_representation()
qzm, qzv = model.get_latent_representation(give_mean=False, return_dist=True)
adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = qzm, qzv
full = model.get_normalized_expression(indices=range(40), library_size=1e4)
before = None if model.minified_data_type is None else str(model.minified_data_type)

model.minify_adata()
small = model.adata
model.save(FOLDER / "minified", overwrite=True, save_anndata=True)
again = scvi.model.SCVI.load(FOLDER / "minified", accelerator="cpu")
expression = again.get_normalized_expression(indices=range(40), library_size=1e4)
moved = np.abs(again.get_latent_representation() - adata.obsm["X_scVI"]).max()
corrected = again.get_normalized_expression(transform_batch=["101", "1015"], indices=range(5))
try:
    again.get_reconstruction_error()
    refused = False
except ValueError:
    refused = True

result = {
    "before": before,
    "type": str(again.minified_data_type),
    "shape": list(small.shape) == list(adata.shape),
    "counts": 0.0 if small.X is None else float(small.X.sum()),
    "moved": bool(moved < 1e-5),
    "drawn": float(np.log(np.asarray(expression) / np.asarray(full)).std()) < 1,
    "corrected": list(corrected.shape),
    "library": bool("observed_lib_size" in "".join(small.obs.columns)),
    "refused": refused,
}
print(json.dumps(result))
