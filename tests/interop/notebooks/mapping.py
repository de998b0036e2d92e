"""Donors mapped onto a reference of others."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 4
adata = anndata.read_h5ad(DATA / "kang_ctrl_8donors.h5ad")[::6].copy()
donors = sorted(adata.obs["batch"].astype(str).unique())
is_query = adata.obs["batch"].astype(str).isin(donors[:2]).to_numpy()
adata_ref, adata_query = adata[~is_query].copy(), adata[is_query].copy()
arches_params = {
    "use_layer_norm": "both",
    "use_batch_norm": "none",
    "encode_covariates": True,
    "dropout_rate": 0.2,
    "n_layers": 2,
}
scvi.model.SCVI.setup_anndata(adata_ref, batch_key="batch")
scvi_ref = scvi.model.SCVI(adata_ref, **arches_params)
scvi_ref.train(20, accelerator="cpu", enable_progress_bar=False)
scvi_ref.save(FOLDER / "reference", overwrite=True)

adata_query = adata_query[:, ::-1].copy()
names = scvi.model.SCVI.prepare_query_anndata(
    adata_query, str(FOLDER / "reference"), return_reference_var_names=True
)
scvi.model.SCVI.prepare_query_anndata(adata_query, str(FOLDER / "reference"))
scvi_query = scvi.model.SCVI.load_query_data(
    adata_query, str(FOLDER / "reference"), accelerator="cpu"
)
before = scvi_query.module.state_dict()["z_encoder.mean_encoder.weight"].clone()
scvi_query.train(
    max_epochs=10, plan_kwargs={"weight_decay": 0.0}, accelerator="cpu", enable_progress_bar=False
)
latent = scvi_query.get_latent_representation()
reference = scvi_query.get_latent_representation(adata_ref)
moved = np.abs(reference - scvi_ref.get_latent_representation()).max()
own, others = adata_query.obs["cell_type"].astype(str), adata_ref.obs["cell_type"].astype(str)
distance = ((latent[:, None] - reference[None]) ** 2).sum(-1)
nearest = np.argsort(distance, axis=1)[:, :15]
votes = [others.iloc[row].mode().iloc[0] for row in nearest]

result = {
    "genes": [str(name) for name in names] == [str(name) for name in adata_ref.var_names],
    "order": [str(name) for name in adata_query.var_names] == [str(name) for name in names],
    "latent": list(latent.shape),
    "moved": float(moved),
    "kept": bool((before == scvi_query.module.state_dict()["z_encoder.mean_encoder.weight"]).all()),
    "batches": int(scvi_query.adata_manager.summary_stats.n_batch),
    "right": float((np.array(votes) == own.to_numpy()).mean()),
}
print(json.dumps(result))
