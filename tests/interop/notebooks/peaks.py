"""Open chromatin of bone marrow: latent, accessibility, and regions that tell cell types apart."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 5
adata = anndata.read_h5ad(DATA / "granja_bmmc_scatac.h5ad")[::12].copy()
sc.pp.filter_genes(adata, min_cells=int(adata.n_obs * 0.05))

scvi.model.PEAKVI.setup_anndata(adata, batch_key="batch")
model = scvi.model.PEAKVI(adata)
model.train(max_epochs=25, lr=2e-3, accelerator="cpu", enable_progress_bar=False)
model.save(FOLDER / "peakvi", overwrite=True)
again = scvi.model.PEAKVI.load(FOLDER / "peakvi", adata=adata, accelerator="cpu")

PEAKVI_LATENT_KEY = "X_peakvi"
adata.obsm[PEAKVI_LATENT_KEY] = model.get_latent_representation()
sc.pp.neighbors(adata, use_rep=PEAKVI_LATENT_KEY)
kinds = adata.obs["cell_type"].astype(str).to_numpy()
graph = adata.obsp["connectivities"].tocoo()
mine, theirs = kinds[graph.row], kinds[graph.col]

accessible = model.get_normalized_accessibility(indices=[0, 3, 5])
of_regions = model.get_normalized_accessibility(region_list=list(adata.var_names[:7]))
depth = model.get_library_size_factors()
regions = model.get_region_factors()

da = model.differential_accessibility(
    groupby="cell_type", group1="17_B", group2="25_NK", silent=True
)
wide = model.differential_accessibility(idx1=kinds == "17_B", idx2=kinds == "25_NK", silent=True)

result = {
    "regions": int(adata.n_vars),
    "latent": list(adata.obsm[PEAKVI_LATENT_KEY].shape),
    "same": bool(np.allclose(again.get_latent_representation(), adata.obsm[PEAKVI_LATENT_KEY])),
    "accessible": [list(accessible.shape), list(of_regions.shape)],
    "shares": bool((np.asarray(accessible) >= 0).all() and (np.asarray(accessible) <= 1).all()),
    "factors": [int(np.size(depth)), int(np.size(regions))],
    "columns": sorted(
        {"prob_da", "is_da_fdr", "bayes_factor", "effect_size", "emp_effect", "est_prob1"}
        & set(da.columns)
    ),
    "rows": [int(da.shape[0]), int(wide.shape[0])],
    "seen": float(da.loc[adata.var_names, "emp_prob1"].mean()),
    "agree": float(np.corrcoef(da["effect_size"], da["emp_effect"])[0, 1]),
    "neighbours": float((mine == theirs).mean()),
    "depth": float(np.corrcoef(np.asarray(depth).ravel(), (adata.X > 0).sum(1).A1)[0, 1]),
}
print(json.dumps(result))
