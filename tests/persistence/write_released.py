"""Tiny models of every kind as this version saves them, for the tests of later versions.

Run by hand before a release that changes the format: `python tests/persistence/write_released.py`.
Folders of earlier versions are never written again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cellvae
from cellvae.model import PEAKVI, POISSONVI, SCANVI, SCVI, AmortizedLDA, LinearSCVI

FOLDER = Path(__file__).parent / "released" / cellvae.__version__
QUICK: dict[str, Any] = {
    "max_epochs": 2,
    "accelerator": "cpu",
    "seed": 0,
    "enable_progress_bar": False,
    "early_stopping": False,
    "check_val_every_n_epoch": 1,
}
SMALL = {"n_hidden": 4, "n_latent": 2}


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    cells = cellvae.data.synthetic_iid(batch_size=20, n_genes=12, n_proteins=0, n_regions=0)
    random = np.random.default_rng(0)
    cells.obs["donor"] = random.choice(["d0", "d1"], cells.n_obs)
    cells.obs["age"] = random.normal(size=cells.n_obs)
    cells.obs["size"] = random.uniform(0.5, 2.0, cells.n_obs)
    cells.write_h5ad(FOLDER / "cells.h5ad", compression="gzip")
    answers: dict[str, np.ndarray] = {}

    def keep(name: str, model: Any, **kwargs: Any) -> Any:
        model.train(**QUICK)
        model.save(FOLDER / name, **kwargs)
        answers[name] = np.asarray(model.get_latent_representation())
        return model

    def made(kind: Any, setup: dict[str, Any], **config: Any) -> Any:
        kind.setup_anndata(cells, **setup)
        torch.manual_seed(0)
        return kind(cells, **config)

    batch = {"batch_key": "batch"}
    labels = {"labels_key": "labels", "unlabeled_category": "label_1"}
    covariates = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]}
    plain = keep("scvi", made(SCVI, batch, **SMALL))
    keep(
        "scvi_covariates",
        made(
            SCVI,
            {**batch, **covariates, "size_factor_key": "size"},
            **SMALL,
            batch_representation="embedding",
            dispersion="gene-batch",
            gene_likelihood="nb",
        ),
    )
    keep("scanvi", made(SCANVI, {**batch, **labels}, **SMALL))
    keep("linear", made(LinearSCVI, batch, **SMALL))
    keep("peakvi", made(PEAKVI, batch, **SMALL))
    keep("poissonvi", made(POISSONVI, batch, **SMALL))
    keep("lda", made(AmortizedLDA, {}, n_topics=2, n_hidden=4))
    query = cells.copy()
    query.obs["batch"] = "new"
    mapped = SCVI.load_query_data(query, plain)
    mapped.train(**QUICK)
    mapped.save(FOLDER / "query")
    answers["query"] = mapped.get_latent_representation()
    plain.minify_adata()
    plain.save(FOLDER / "minified", save_anndata=True)
    answers["minified"] = plain.get_latent_representation()
    np.savez_compressed(FOLDER / "answers.npz", **answers)


if __name__ == "__main__":
    main()
