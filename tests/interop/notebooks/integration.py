"""Donors brought together, with covariates and a checkpoint of the best epoch."""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import scvi

DATA, FOLDER = map(Path, sys.argv[1:3])
scvi.settings.seed = 1
adata = anndata.read_h5ad(DATA / "kang_ctrl_8donors.h5ad")[::8].copy()
adata.layers["counts"] = adata.X.copy()
adata.obs["half"] = np.array(["left", "right"])[np.arange(adata.n_obs) % 2]
adata.obs["detected"] = np.log(np.asarray((adata.X > 0).sum(1)).ravel())

scvi.model.SCVI.setup_anndata(
    adata,
    layer="counts",
    batch_key="batch",
    categorical_covariate_keys=["half"],
    continuous_covariate_keys=["detected"],
)
model = scvi.model.SCVI(adata, n_layers=2, n_latent=12, gene_likelihood="nb")
model.train(
    max_epochs=6,
    accelerator="cpu",
    enable_progress_bar=False,
    check_val_every_n_epoch=1,
    enable_checkpointing=True,
    callbacks=[
        scvi.train.SaveCheckpoint(
            dirpath=str(FOLDER / "best"),
            monitor="elbo_validation",
            load_best_on_end=True,
        )
    ],
    plan_kwargs={"n_epochs_kl_warmup": 6},
)
latent = model.get_latent_representation()
mean, variance = model.get_latent_representation(return_dist=True)
donors = sorted(adata.obs["batch"].astype(str).unique())
corrected = model.get_normalized_expression(
    adata[:50], gene_list=adata.var_names[:5], transform_batch=donors[:2], library_size="latent"
)
predictive = model.posterior_predictive_sample(indices=np.arange(20))

result = {
    "latent": list(latent.shape),
    "distribution": [list(np.shape(mean)), bool((np.asarray(variance) > 0).all())],
    "corrected": list(corrected.shape),
    "columns": [str(name) for name in corrected.columns] == [str(n) for n in adata.var_names[:5]],
    "predictive": list(predictive.shape),
    "checkpoints": any((FOLDER / "best").iterdir()),
    "n_batch": int(model.adata_manager.summary_stats.n_batch),
    "covariates": list(
        model.adata_manager.get_state_registry(scvi.REGISTRY_KEYS.CAT_COVS_KEY)["field_keys"]
    ),
    "elbo": float(model.get_elbo(indices=model.validation_indices)),
}
print(json.dumps(result))
