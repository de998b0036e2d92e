"""Labels told by a SCANVI of either package: PACKAGE DATA SEED SCVI_EPOCHS EPOCHS THREADS."""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings

import anndata
import numpy as np
import torch

KEPT = 0.1
UNKNOWN = "Unknown"


def main() -> None:
    side, data, seed, first, second, threads = sys.argv[1:7]
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(threads))
    package = importlib.import_module(side)
    package.settings.seed = int(seed)
    adata = anndata.read_h5ad(data)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    donor = adata.obs["batch"].astype(str).to_numpy()
    random = np.random.default_rng(int(seed))
    without = random.choice(np.unique(donor), 2, replace=False)
    known = (random.random(adata.n_obs) < KEPT) & ~np.isin(donor, without)
    adata.obs["seen"] = np.where(known, truth, UNKNOWN)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    begin = time.perf_counter()
    package.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="seen")
    base = package.model.SCVI(adata)
    base.train(max_epochs=int(first), **quiet)
    middle = time.perf_counter()
    model = package.model.SCANVI.from_scvi_model(base, unlabeled_category=UNKNOWN)
    model.train(max_epochs=int(second), n_samples_per_label=100, **quiet)
    end = time.perf_counter()
    right = model.predict() == truth
    print(
        json.dumps(
            {
                "hidden": float(right[~known].mean()),
                "new donors": float(right[np.isin(donor, without)].mean()),
                "scvi_seconds": middle - begin,
                "scanvi_seconds": end - middle,
            }
        )
    )


if __name__ == "__main__":
    main()
