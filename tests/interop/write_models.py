"""Models that scvi-tools wrote, for the tests of reading them, in `data/`.

Run by hand, in an environment with scvi-tools==1.4.2 and captum:
`python tests/interop/write_models.py`.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scvi
import torch

HERE = Path(__file__).parent / "data"
QUICK = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
ELBO = ("scvi", "scvi_covariates", "scvi_size", "linear")
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
        if name in ELBO:
            draws = [float(model.get_elbo()) for _ in range(200)]
            latents[f"{name} elbo"] = np.array([np.mean(draws), np.std(draws)])
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
    for name, kind in (
        ("minified", "latent_posterior_parameters"),
        ("minified_with_counts", "latent_posterior_parameters_with_counts"),
    ):
        models.SCVI.setup_anndata(cells, batch_key="batch")
        model = models.SCVI(cells, **SMALL)
        model.train(**QUICK)
        means, variances = model.get_latent_representation(return_dist=True)
        cells.obsm["X_latent_qzm"], cells.obsm["X_latent_qzv"] = means, variances
        model.minify_adata(kind)
        latents[name] = means
        latents[f"{name} expression"] = model.get_normalized_expression(
            n_samples=200, return_numpy=True
        )
        model.save(HERE / name, save_anndata=True)
        for key in ("X_latent_qzm", "X_latent_qzv"):
            del cells.obsm[key]
    for name, source in (
        ("legacy", "scvi"),
        ("legacy_covariates", "scvi_covariates"),
        ("legacy_scanvi", "scanvi"),
    ):
        write_legacy(HERE / source, HERE / name)
        check_legacy(HERE / name, "SCANVI" if "scanvi" in name else "SCVI", plain, latents[source])
        latents[name] = latents[source]
    np.savez_compressed(HERE / "answers.npz", **latents)
    plain.write_h5ad(HERE / "cells.h5ad", compression="gzip")
    write_probabilities(plain)


def write_probabilities(cells: Any) -> None:
    """Write a SCANVI whose classifier gives probabilities, with what it predicts."""
    scvi.settings.seed = 1
    labels = {"labels_key": "labels", "unlabeled_category": "label_1", "batch_key": "batch"}
    scvi.model.SCANVI.setup_anndata(cells, **labels)
    model = scvi.model.SCANVI(cells, **SMALL, classifier_parameters={"logits": False})
    model.train(**QUICK)
    model.save(HERE / "scanvi_probabilities")
    found, table = model.predict(soft=True, ig_interpretability=True)
    table = table.set_index("feature").loc[cells.var_names]
    np.savez_compressed(
        HERE / "scanvi_probabilities.npz",
        latent=np.asarray(model.get_latent_representation()),
        probabilities=found.to_numpy(),
        attributions=table[["attribution_mean", "attribution_std"]].to_numpy(),
        columns=np.array([str(name) for name in model.predict(ig_interpretability=True)[1]]),
    )


def write_legacy(source: Path, folder: Path) -> None:
    """Write a model in the three files of versions before 0.15."""
    saved = torch.load(source / "model.pt", weights_only=False)
    attributes = saved["attr_dict"]
    registry = attributes.pop("registry_")
    fields, kwargs = registry["field_registries"], registry["setup_args"]
    places: dict[str, Any] = {"X": {"attr_name": "X", "attr_key": None}}
    mappings: dict[str, Any] = {}
    stats = {"n_cells": 120, "n_vars": len(saved["var_names"])}
    setup: dict[str, Any] = {"scvi_version": "0.14.5"}
    for old, new in (("batch_indices", "batch"), ("labels", "labels")):
        state = fields[new]["state_registry"]
        key = f"_scvi_{new}"
        places[old] = {"attr_name": "obs", "attr_key": key}
        mappings[key] = {
            "original_key": state["original_key"],
            "mapping": np.array(state["categorical_mapping"]),
        }
        stats[f"n_{new}"] = len(state["categorical_mapping"])
    if kwargs.get("categorical_covariate_keys"):
        state = fields["extra_categorical_covs"]["state_registry"]
        places["cat_covs"] = {"attr_name": "obsm", "attr_key": "_scvi_extra_categoricals"}
        setup["extra_categoricals"] = {
            "mappings": dict(state["mappings"]),
            "keys": list(state["field_keys"]),
            "n_cats_per_key": list(state["n_cats_per_key"]),
        }
    if kwargs.get("continuous_covariate_keys"):
        places["cont_covs"] = {"attr_name": "obsm", "attr_key": "_scvi_extra_continuous"}
        setup["extra_continuous_keys"] = np.array(kwargs["continuous_covariate_keys"])
    setup |= {"data_registry": places, "categorical_mappings": mappings, "summary_stats": stats}
    attributes["scvi_setup_dict_"] = setup
    if "unlabeled_category" in kwargs:
        attributes["unlabeled_category_"] = kwargs["unlabeled_category"]
    folder.mkdir()
    torch.save(saved["model_state_dict"], folder / "model_params.pt")
    np.savetxt(folder / "var_names.csv", saved["var_names"], fmt="%s")
    with (folder / "attr.pkl").open("wb") as file:
        pickle.dump(attributes, file)


def check_legacy(folder: Path, kind: str, cells: Any, latent: np.ndarray) -> None:
    """Check that scvi-tools itself can convert the three files."""
    model = getattr(scvi.model, kind)
    cells = cells.copy()
    # The converted set-up names it as a column that the user has.
    cells.obs["_scvi_labels"] = 0
    with tempfile.TemporaryDirectory() as converted:
        model.convert_legacy_save(folder, converted, overwrite=True)
        found = model.load(converted, cells, accelerator="cpu").get_latent_representation()
    np.testing.assert_allclose(found, latent, atol=1e-6)


if __name__ == "__main__":
    main()
