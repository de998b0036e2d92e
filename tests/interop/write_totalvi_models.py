"""TOTALVI models that scvi-tools wrote, for the tests of reading them, in `data/totalvi/`.

Run by hand, in an environment with scvi-tools==1.4.2 and mudata:
`python tests/interop/write_totalvi_models.py`.
"""

from __future__ import annotations

import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
import torch
from scvi.model import TOTALVI

HERE = Path(__file__).parent / "data" / "totalvi"
QUICK = {"max_epochs": 1, "train_size": 0.8, "accelerator": "cpu", "enable_progress_bar": False}
SMALL = {"n_latent": 3, "n_hidden": 6}


def main() -> None:
    """Write cells, models and their latents."""
    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    cells = make_cells()
    latents: dict[str, np.ndarray] = {}
    key = {"protein_expression_obsm_key": "proteins"}
    cases: dict[str, dict[str, Any]] = {
        "missing": {"batch_key": "batch"},
        "panels": {"batch_key": "donor", "panel_key": "batch"},
        "covariates": {
            "batch_key": "batch",
            "size_factor_key": "size",
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
    }
    for name, setup in cases.items():
        TOTALVI.setup_anndata(cells, **key, **setup)
        model = TOTALVI(cells, **SMALL)
        model.train(**QUICK)
        model.save(HERE / name)
        latents[name] = model.get_latent_representation()
    write_legacy(HERE / "missing", HERE / "legacy")
    mdata = as_mudata(cells)
    modalities = {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"}
    TOTALVI.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    model = TOTALVI(mdata, **SMALL)
    model.train(**QUICK)
    model.save(HERE / "mudata")
    latents["mudata"] = model.get_latent_representation()
    cells.write_h5ad(HERE / "cells.h5ad", compression="gzip")
    np.savez_compressed(HERE / "latents.npz", **latents)


def make_cells() -> anndata.AnnData:
    """Cells whose third protein was not measured in one batch."""
    random = np.random.default_rng(0)
    cells = scvi.data.synthetic_iid(batch_size=30, n_genes=15, n_proteins=11, n_regions=0)
    counts = np.asarray(cells.obsm.pop("protein_expression")).astype(float)
    counts[(cells.obs["batch"] == "batch_1").to_numpy(), 2] = 0
    names = [f"CD{i}" for i in range(counts.shape[1])]
    cells.obsm["proteins"] = pd.DataFrame(counts, index=cells.obs_names, columns=names)
    cells.obs["donor"] = random.choice(["d0", "d1"], cells.n_obs)
    cells.obs["age"] = random.normal(size=cells.n_obs)
    cells.obs["size"] = random.uniform(0.5, 2.0, cells.n_obs)
    cells.uns.clear()
    return cells


def as_mudata(cells: anndata.AnnData) -> mudata.MuData:
    """The cells with a modality for each table."""
    table = cells.obsm["proteins"]
    protein = anndata.AnnData(table.to_numpy().astype(np.float32))
    protein.obs_names, protein.var_names = cells.obs_names, [*table.columns]
    rna = anndata.AnnData(cells.X.copy(), obs=cells.obs.copy(), var=cells.var.copy())
    return mudata.MuData({"rna": rna, "protein": protein})


def write_legacy(folder: Path, target: Path) -> None:
    """The three files of versions before 0.15, as those versions laid them out."""
    saved = torch.load(folder / "model.pt", weights_only=False)
    attributes = dict(saved["attr_dict"])
    registry = attributes.pop("registry_")
    fields = registry["field_registries"]
    batch = fields["batch"]["state_registry"]
    proteins = fields["proteins"]["state_registry"]
    mask = proteins["protein_batch_mask"]
    attributes["scvi_setup_dict_"] = {
        "scvi_version": "0.8.1",
        "data_registry": {
            "X": {"attr_name": "X", "attr_key": None},
            "batch_indices": {"attr_name": "obs", "attr_key": "_scvi_batch"},
            "protein_expression": {"attr_name": "obsm", "attr_key": "proteins"},
        },
        "summary_stats": {"n_vars": 15, "n_cells": 60, "n_batch": 2, "n_proteins": 11},
        "categorical_mappings": {
            "_scvi_batch": {
                "original_key": batch["original_key"],
                "mapping": batch["categorical_mapping"],
            }
        },
        "protein_names": [*proteins["column_names"]],
        "totalvi_batch_mask": [mask[str(i)] for i in range(2)],
    }
    target.mkdir()
    weights = dict(saved["model_state_dict"])
    del weights["log_per_batch_efficiency"]
    torch.save(weights, target / "model_params.pt")
    (target / "attr.pkl").write_bytes(pickle.dumps(attributes))
    names = "\n".join(map(str, saved["var_names"])) + "\n"
    (target / "var_names.csv").write_text(names)


if __name__ == "__main__":
    main()
