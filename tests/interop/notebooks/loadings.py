"""Factors of a linear decoder, the genes that load on them, and pictures of both."""

import json
import sys
from pathlib import Path

import anndata
import matplotlib
import numpy as np
import scanpy as sc
import scvi

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 6
adata = anndata.read_h5ad(DATA / "kang_ctrl_8donors.h5ad")[::8].copy()
adata.layers["counts"] = adata.X.copy()
sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)

scvi.model.LinearSCVI.setup_anndata(adata, layer="counts")
model = scvi.model.LinearSCVI(adata, n_latent=8)
model.train(
    max_epochs=60,
    plan_kwargs={"lr": 5e-3, "n_epochs_kl_warmup": 20},
    check_val_every_n_epoch=10,
    accelerator="cpu",
    enable_progress_bar=False,
)

figure, axes = plt.subplots()
axes.plot(model.history["elbo_train"]["elbo_train"], label="train")
axes.plot(model.history["elbo_validation"]["elbo_validation"], label="validation")
axes.legend()
figure.savefig(FOLDER / "elbo.png")

Z_hat = model.get_latent_representation()
for i, z in enumerate(Z_hat.T):
    adata.obs[f"Z_{i}"] = z
figure, panels = plt.subplots(2, 2)
for n, panel in enumerate(panels.ravel()):
    panel.scatter(Z_hat[:, 2 * n], Z_hat[:, 2 * n + 1], s=2)
    panel.set_xlabel(f"Z_{2 * n}")
    panel.set_ylabel(f"Z_{2 * n + 1}")
figure.savefig(FOLDER / "factors.png")

loadings = model.get_loadings()
tops = {clmn: loadings[clmn].sort_values(ascending=False).head(12) for clmn in loadings}
lows = {clmn: loadings[clmn].sort_values().head(12) for clmn in loadings}
figure, axes = plt.subplots()
axes.barh(list(tops["Z_0"].index), list(tops["Z_0"]))
figure.savefig(FOLDER / "loadings.png")

ends = [set(found.index) for found in (*tops.values(), *lows.values())]
myeloid = max(len(end & {"LYZ", "CST3", "S100A8", "S100A9", "CD14", "MS4A7"}) for end in ends)
monocytes = adata.obs["cell_type"].astype(str).str.contains("Mono").to_numpy()
apart = max(abs(np.corrcoef(z, monocytes)[0, 1]) for z in Z_hat.T)

result = {
    "latent": list(Z_hat.shape),
    "loadings": list(loadings.shape),
    "names": [str(name) for name in loadings.columns] == [f"Z_{i}" for i in range(8)],
    "genes": [str(name) for name in loadings.index] == [str(name) for name in adata.var_names],
    "n_latent": int(model.n_latent),
    "checks": int(model.history["elbo_validation"].shape[0]),
    "pictures": [
        (FOLDER / f"{name}.png").stat().st_size > 1000 for name in ("elbo", "factors", "loadings")
    ],
    "myeloid": bool(myeloid >= 2),
    "apart": float(apart),
}
print(json.dumps(result))
