"""MULTIVI models that scvi-tools wrote, for the tests of reading them, in `data/multivi/`.

Run by hand, in an environment with scvi-tools==1.4.2 and mudata:
`python tests/interop/write_multivi_models.py`. With scvi-tools==1.3.3, the last version that sets
an AnnData up for MULTIVI, the same command adds the model of an AnnData.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
from scvi.model import MULTIVI

HERE = Path(__file__).parent / "data" / "multivi"
N_CELLS = 60
SIZES = {"rna": 12, "atac": 16, "protein": 4}
QUICK = {
    "max_epochs": 2,
    "lr": 0.05,
    "train_size": 0.8,
    "adversarial_mixing": False,
    "accelerator": "cpu",
    "enable_progress_bar": False,
}
SMALL = {"n_latent": 3, "n_hidden": 6}
OF_RNA = {"rna_layer": "rna", "batch_key": "rna"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "proteins": (
        {"batch_key": "batch"},
        {**OF_RNA, "atac_layer": "atac", "protein_layer": "protein"},
        {"modality_weights": "universal", "modality_penalty": "MMD", "n_latent": 3},
    ),
    "cell": (
        {
            "batch_key": "batch",
            "size_factor_key": ["size", "depth"],
            "categorical_covariate_keys": ["donor"],
            "continuous_covariate_keys": ["age"],
        },
        {
            **OF_RNA,
            "atac_layer": "atac",
            "categorical_covariate_keys": "rna",
            "continuous_covariate_keys": "rna",
        },
        {"modality_weights": "cell", **SMALL},
    ),
    "regions": ({}, {"atac_layer": "atac"}, {"region_factors": False}),
    "genes": (
        {"batch_key": "batch", "rna_layer": "counts", "categorical_covariate_keys": ["donor"]},
        {**OF_RNA, "protein_layer": "protein", "categorical_covariate_keys": "rna"},
        {
            **SMALL,
            "gene_likelihood": "poisson",
            "encode_covariates": True,
            "deeply_inject_covariates": True,
            "use_batch_norm": "both",
            "use_layer_norm": "none",
        },
    ),
}
"""Arguments of the set-up, modalities and options of each model."""


def main() -> None:
    """Write cells, models and their latents."""
    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    if scvi.__version__ == "1.3.3":
        write_model_of_anndata()
        return
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    mdata = make_cells()
    mdata.write_h5mu(HERE / "cells.h5mu", compression="gzip")
    latents = {}
    for name, (setup, modalities, options) in CASES.items():
        cells = with_modalities(make_cells(), modalities)
        MULTIVI.setup_mudata(cells, modalities=modalities, **setup)
        model = MULTIVI(cells, **options)
        model.train(**QUICK)
        model.save(HERE / name)
        latents[name] = model.get_latent_representation()
    np.savez_compressed(HERE / "latents.npz", **latents)


def write_model_of_anndata() -> None:
    """Model of one AnnData with genes, then regions, and proteins in `obsm`."""
    mdata = mudata.read_h5mu(HERE / "cells.h5mu")
    cells = as_anndata(mdata)
    shutil.rmtree(HERE / "anndata", ignore_errors=True)
    MULTIVI.setup_anndata(cells, batch_key="batch", protein_expression_obsm_key="protein")
    model = MULTIVI(cells, n_genes=SIZES["rna"], n_regions=SIZES["atac"], n_latent=3)
    model.train(**QUICK)
    model.save(HERE / "anndata")
    with np.load(HERE / "latents.npz") as arrays:
        latents = dict(arrays)
    latents["anndata"] = model.get_latent_representation()
    np.savez_compressed(HERE / "latents.npz", **latents)


def with_modalities(mdata: Any, modalities: dict[str, Any]) -> Any:
    """MuData of the modalities that are read, as scvi-tools 1.4.2 needs it."""
    tables = [modality for name, modality in modalities.items() if name.endswith("_layer")]
    cells = mudata.MuData({name: mdata[name].copy() for name in tables})
    cells.obs[["size", "depth"]] = mdata.obs[["size", "depth"]]
    return cells


def as_anndata(mdata: Any) -> anndata.AnnData:
    """Genes and regions of a MuData side by side."""
    cells = anndata.concat([mdata["rna"], mdata["atac"]], axis=1)
    cells.obs = mdata["rna"].obs[["batch"]].copy()
    cells.var["feature_types"] = ["Gene Expression"] * SIZES["rna"] + ["Peaks"] * SIZES["atac"]
    cells.obsm["protein"] = mdata["protein"].to_df()
    return cells


def make_cells() -> Any:
    """Cells of two kinds; the first have no regions, the last no genes."""
    random = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 2
    names = [f"cell{i}" for i in range(N_CELLS)]
    counts = {
        "rna": random.poisson(random.gamma(2.0, 3.0, (2, SIZES["rna"]))[kind]) + 1,
        "atac": random.random((N_CELLS, SIZES["atac"]))
        < random.uniform(0.2, 0.9, (2, SIZES["atac"]))[kind],
        "protein": random.poisson(random.gamma(2.0, 8.0, (2, SIZES["protein"]))[kind]) + 1,
    }
    counts["atac"][:10] = 0
    counts["rna"][-10:] = 0
    tables = {}
    for name, values in counts.items():
        features = pd.DataFrame(index=[f"{name}{i}" for i in range(values.shape[1])])
        obs = pd.DataFrame(index=names)
        tables[name] = anndata.AnnData(values.astype(np.float32), obs=obs, var=features)
    rna = tables["rna"]
    rna.layers["counts"] = rna.X.copy()
    rna.obs["batch"] = np.array(["b0", "b1"])[random.integers(0, 2, N_CELLS)]
    rna.obs["donor"] = np.array(["d0", "d1", "d2"])[random.integers(0, 3, N_CELLS)]
    rna.obs["age"] = random.normal(size=N_CELLS)
    mdata = mudata.MuData(tables)
    mdata.obs["size"] = random.uniform(0.5, 2.0, N_CELLS)
    mdata.obs["depth"] = random.uniform(0.2, 0.9, N_CELLS)
    return mdata


if __name__ == "__main__":
    main()
