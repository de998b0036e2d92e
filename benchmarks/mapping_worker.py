"""Donors mapped by PACKAGE: DATA SEED MODEL OPTIONS EPOCHS EPOCHS THREADS."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
import warnings
from typing import Any

import anndata
import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

KEPT = 0.25
UNKNOWN = "Unknown"
SCARCHES: dict[str, Any] = {
    "use_layer_norm": "both",
    "use_batch_norm": "none",
    "encode_covariates": True,
    "dropout_rate": 0.2,
    "n_layers": 2,
}


def right(reference: np.ndarray, labels: np.ndarray, query: np.ndarray, own: np.ndarray) -> float:
    """Share of cells whose label is the commonest among their 15 nearest of the reference."""
    return float(KNeighborsClassifier(15).fit(reference, labels).score(query, own))


def main() -> None:
    side, data, seed, kind, options, first, second, threads = sys.argv[1:9]
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(threads))
    package = importlib.import_module(side)
    package.settings.seed = int(seed)
    adata = anndata.read_h5ad(data)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    donor = adata.obs["batch"].astype(str).to_numpy()
    random = np.random.default_rng(int(seed))
    mapped = np.isin(donor, random.choice(np.unique(donor), 2, replace=False))
    adata.obs["donor"] = donor
    adata.obs["seen"] = np.where(random.random(adata.n_obs) < KEPT, truth, UNKNOWN)
    reference, query = adata[~mapped].copy(), adata[mapped].copy()
    del query.obs["seen"]
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    chosen = SCARCHES if options == "scarches" else {}
    model_class = getattr(package.model, kind)
    begin = time.perf_counter()
    if kind == "SCANVI":
        model_class.setup_anndata(reference, "seen", UNKNOWN, batch_key="donor")
    else:
        model_class.setup_anndata(reference, batch_key="donor")
    model = model_class(reference, **chosen)
    model.train(max_epochs=int(first), **quiet)
    middle = time.perf_counter()
    figures = {"reference_seconds": middle - begin}
    latent = model.get_latent_representation()
    own, others = truth[~mapped], truth[mapped]
    half = np.arange(len(own)) % 2 == 0
    figures["reference"] = right(latent[half], own[half], latent[~half], own[~half])
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, overwrite=True)
        begin = time.perf_counter()
        model_class.prepare_query_anndata(query, folder)
        new = model_class.load_query_data(query, folder, accelerator="cpu")
        new.is_trained = True
        figures["before"] = right(latent, own, new.get_latent_representation(), others)
        new.is_trained = False
        new.train(max_epochs=int(second), plan_kwargs={"weight_decay": 0.0}, **quiet)
        figures["query_seconds"] = time.perf_counter() - begin
    figures["mapped"] = right(
        new.get_latent_representation(reference), own, new.get_latent_representation(), others
    )
    if kind == "SCANVI":
        figures["told"] = float((np.asarray(new.predict()) == others).mean())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
