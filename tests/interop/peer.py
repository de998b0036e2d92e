"""Latents by scvi-tools itself of models in folders: run in its own environment by the tests."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import scvi


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    for name, kind in json.loads((folder / "kinds.json").read_text()).items():
        cells = anndata.read_h5ad(folder / "cells.h5ad")
        model = getattr(scvi.model, kind).load(folder / name, cells, accelerator="cpu")
        latent = np.asarray(model.get_latent_representation())
        np.save(folder / f"{name}.npy", latent)
        if kind == "SCANVI":
            np.save(folder / f"{name} labels.npy", model.predict(soft=True).to_numpy())
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)


if __name__ == "__main__":
    main()
