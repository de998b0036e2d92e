"""TOTALANVI models that scvi-tools wrote, for the tests of reading them, in `data/totalanvi/`.

Run by hand, in an environment with scvi-tools==1.4.2, after `write_totalvi_models.py`, whose cells
are used: `python tests/interop/write_totalanvi_models.py`.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scvi
from scvi.external import TOTALANVI

DATA = Path(__file__).parent / "data"
HERE = DATA / "totalanvi"
QUICK = {"max_epochs": 2, "train_size": 0.8, "accelerator": "cpu", "enable_progress_bar": False}
LABELS = {"labels_key": "labels", "unlabeled_category": "label_0"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "missing": ({"batch_key": "batch"}, {}),
    "covariates": (
        {
            "batch_key": "donor",
            "panel_key": "batch",
            "size_factor_key": "size",
            "continuous_covariate_keys": ["age"],
        },
        {"linear_classifier": True, "protein_dispersion": "protein-batch"},
    ),
}


def main() -> None:
    """Write models, their latents and the probabilities of their labels."""
    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    answers: dict[str, np.ndarray] = {}
    for name, (setup, options) in CASES.items():
        cells = anndata.read_h5ad(DATA / "totalvi" / "cells.h5ad")
        TOTALANVI.setup_anndata(cells, protein_expression_obsm_key="proteins", **LABELS, **setup)
        model = TOTALANVI(cells, n_latent=3, n_hidden=6, **options)
        model.train(**QUICK)
        model.save(HERE / name)
        answers[f"{name} latent"] = model.get_latent_representation()
        answers[f"{name} labels"] = model.predict(soft=True).to_numpy()
    np.savez_compressed(HERE / "answers.npz", **answers)


if __name__ == "__main__":
    main()
