"""Doublet probabilities by scvi-tools' SOLO, as JSON: FEATURES SEED."""

from __future__ import annotations

import json
import sys
import warnings

import anndata
import scvi


def main() -> None:
    path, seed = sys.argv[1:3]
    warnings.simplefilter("ignore")
    scvi.settings.seed = int(seed)
    features = anndata.read_h5ad(path)
    scvi.external.SOLO.setup_anndata(features, labels_key="_solo_doub_sim")
    model = scvi.external.SOLO(features)
    model.train(accelerator="cpu", enable_progress_bar=False)
    print(json.dumps(model.predict()["doublet"].tolist()))


if __name__ == "__main__":
    main()
