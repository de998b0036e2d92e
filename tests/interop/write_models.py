"""Models that scvi-tools wrote, for the tests of reading them, in `data/`.

Run by hand, in an environment with scvi-tools==1.4.2: `python tests/interop/write_models.py`.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scvi

HERE = Path(__file__).parent / "data"
QUICK = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
SMALL = {"n_hidden": 6, "n_latent": 3}


def main() -> None:
    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    cells = scvi.data.synthetic_iid(batch_size=40, n_genes=20, n_proteins=0, n_regions=0)
    random = np.random.default_rng(0)
    cells.obs["donor"] = random.choice(["d0", "d1"], cells.n_obs)
    cells.obs["age"] = random.normal(size=cells.n_obs)
    cells.obs["size"] = random.uniform(0.5, 2.0, cells.n_obs)
    plain = cells.copy()
    latents: dict[str, Any] = {}

    def keep(name: str, kind: Any, setup: dict[str, Any], config: dict[str, Any]) -> None:
        kind.setup_anndata(cells, **setup)
        model = kind(cells, **config)
        further = {"early_stopping": False} if kind is scvi.model.PEAKVI else {}
        model.train(**QUICK, **further)
        model.save(HERE / name)
        latents[name] = np.asarray(model.get_latent_representation())
        if name.startswith("scvi"):
            latents[f"{name} parameters"] = np.stack(
                model.get_latent_representation(return_dist=True)
            )
        if name.startswith("scvi") and name != "scvi_embedding":
            # With learned vectors of batches scvi-tools 1.4.2 fails for several samples.
            latents[f"{name} expression"] = model.get_normalized_expression(
                n_samples=200, return_numpy=True
            )
        if name == "scanvi":
            latents["scanvi probabilities"] = model.predict(soft=True).to_numpy()

    models = scvi.model
    keep("scvi", models.SCVI, {"batch_key": "batch"}, SMALL)
    keep(
        "scvi_covariates",
        models.SCVI,
        {
            "batch_key": "batch",
            "labels_key": "labels",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        {
            **SMALL,
            "n_layers": 2,
            "encode_covariates": True,
            "dispersion": "gene-batch",
            "gene_likelihood": "nb",
            "use_observed_lib_size": False,
        },
    )
    keep(
        "scvi_size",
        models.SCVI,
        {"size_factor_key": "size"},
        {
            **SMALL,
            "gene_likelihood": "poisson",
            "use_layer_norm": "both",
            "use_batch_norm": "none",
        },
    )
    keep(
        "scvi_embedding",
        models.SCVI,
        {"batch_key": "batch"},
        {**SMALL, "batch_representation": "embedding"},
    )
    labels = {"labels_key": "labels", "unlabeled_category": "label_1", "batch_key": "batch"}
    keep("scanvi", models.SCANVI, labels, SMALL)
    keep("linear", models.LinearSCVI, {"batch_key": "batch"}, SMALL)
    keep("peakvi", models.PEAKVI, {"batch_key": "batch"}, SMALL)
    models.AmortizedLDA.setup_anndata(cells)
    topics = models.AmortizedLDA(cells, n_topics=3, n_hidden=6)
    topics.train(**QUICK)
    topics.save(HERE / "lda")
    latents["lda features"] = topics.get_feature_by_topic(20_000).to_numpy()
    np.savez_compressed(HERE / "answers.npz", **latents)
    plain.write_h5ad(HERE / "cells.h5ad", compression="gzip")


if __name__ == "__main__":
    main()
