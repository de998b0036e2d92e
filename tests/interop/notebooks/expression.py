"""Genes that differ between kinds of blood cells."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 3
adata = anndata.read_h5ad(DATA / "pbmc3k.h5ad")
many = np.argsort(np.asarray(adata.X.sum(0)).ravel())[::-1][:1000]
adata = adata[:, np.sort(many)].copy()
scvi.model.SCVI.setup_anndata(adata)
model = scvi.model.SCVI(adata)
model.train(max_epochs=30, accelerator="cpu", enable_progress_bar=False)

kinds = adata.obs["cell_type"].astype(str)
first = next(kind for kind in kinds.unique() if "B" in kind.split("+")[-1])
de = model.differential_expression(
    groupby="cell_type", group1=first, mode="change", delta=0.25, silent=True
)
chosen = de[(de["is_de_fdr_0.05"]) & (de.lfc_mean > 0)]
masks = (kinds == first).to_numpy()
vanilla = model.differential_expression(idx1=masks, idx2=~masks, mode="vanilla", silent=True)

result = {
    "group": first,
    "rows": int(de.shape[0]),
    "columns": sorted(
        {"proba_de", "bayes_factor", "lfc_mean", "lfc_median", "raw_mean1", "group1", "comparison"}
        & set(de.columns)
    ),
    "comparison": str(de["comparison"].iloc[0]),
    "vanilla": sorted({"proba_m1", "bayes_factor", "scale1", "raw_mean1"} & set(vanilla.columns)),
    "found": [gene for gene in ("CD79A", "MS4A1", "CD74", "HLA-DRA") if gene in chosen.index],
    "raw": {gene: float(de.loc[gene, "raw_mean1"]) for gene in ("CD79A", "CD74")},
}
print(json.dumps(result))
