"""MULTIVI of minified cells: the same answers from stored posteriors and sizes, without counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy.sparse import csr_matrix

import cellvae
from cellvae.data.mudata_adapter import is_mudata
from cellvae.errors import DataMismatchError, InvalidOptionError
from cellvae.model import MULTIVI, TOTALVI

pytestmark = pytest.mark.trains

N_CELLS = 45
WITH_COUNTS = "latent_posterior_parameters_with_counts"
ANSWERS: dict[str, dict[str, Any]] = {
    "get_latent_representation": {},
    "get_normalized_expression": {"use_z_mean": False, "n_samples": 2, "transform_batch": "b"},
    "get_normalized_accessibility": {"normalize_cells": True, "normalize_regions": True},
    "get_protein_foreground_probability": {"n_samples": 2},
    "get_library_size_factors": {},
    "get_region_factors": {},
    "differential_expression": {"n_samples_overall": 60},
    "differential_accessibility": {"n_samples_overall": 60},
}
GROUPS = {"groupby": "batch", "group1": "a", "group2": "b", "all_stats": False}
NEEDS_COUNTS: dict[str, dict[str, Any]] = {
    "get_elbo": {},
    "get_reconstruction_error": {},
    "get_marginal_ll": {"n_mc_samples": 2},
    "get_latent_representation": {"modality": "accessibility"},
    "differential_expression": {"groupby": "batch", "n_samples_overall": 60, "silent": True},
}


def make_cells(*, as_mudata: bool) -> AnnData | MuData:
    """Cells of which 10 have no genes and 10 others no regions, set up."""
    rng = np.random.default_rng(1)
    counts = {
        "rna": rng.poisson(3, (N_CELLS, 9)) + 1.0,
        "atac": (rng.random((N_CELLS, 14)) < 0.4) + 0.0,
        "protein": rng.poisson(5, (N_CELLS, 3)) + 1.0,
    }
    counts["atac"][:, 0] = 1
    counts["rna"][:10], counts["atac"][10:20] = 0, 0
    names = [f"cell{i}" for i in range(N_CELLS)]
    tables = {}
    for name, values in counts.items():
        present = values.sum(axis=1) > 0 if as_mudata else np.ones(N_CELLS, dtype=bool)
        table = AnnData(csr_matrix(values[present], dtype=np.float32))
        table.obs_names = [name for name, here in zip(names, present, strict=True) if here]
        table.var_names = [f"{name}{i}" for i in range(values.shape[1])]
        tables[name] = table
    batch = np.array(["a", "b", "c"])[np.arange(N_CELLS) % 3]
    if as_mudata:
        mdata = MuData({name: tables[name] for name in ("protein", "rna", "atac")})
        mdata.obs["batch"] = batch[[int(name[4:]) for name in mdata.obs_names]]
        layers = {f"{name}_layer": name for name in tables}
        MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=layers)
        return mdata
    import anndata

    adata = anndata.concat([tables["rna"], tables["atac"]], axis=1)
    adata.var["feature_types"] = ["Gene Expression"] * 9 + ["Peaks"] * 14
    adata.obs["batch"] = batch
    adata.obsm["protein"] = tables["protein"].to_df()
    MULTIVI.setup_anndata(adata, batch_key="batch", protein_expression_obsm_key="protein")
    return adata


def trained(cells: Any, **config: Any) -> MULTIVI:
    torch.manual_seed(0)
    model = MULTIVI(cells, n_hidden=8, n_latent=3, **config)
    model.train(2, seed=0, batch_size=15, accelerator="cpu", enable_progress_bar=False)
    return model


def answers(model: MULTIVI) -> dict[str, list[np.ndarray]]:
    """Every answer that needs no counts, with the same random numbers every time."""
    found = {}
    for name, kwargs in ANSWERS.items():
        torch.manual_seed(3)
        silent = (
            {} if name in ("get_latent_representation", "get_region_factors") else {"silent": True}
        )
        groups = GROUPS if name.startswith("differential") else {}
        answer = getattr(model, name)(**kwargs, **silent, **groups)
        if hasattr(answer, "sort_index"):
            answer = answer.sort_index().select_dtypes("number")
        parts = [*answer.values()] if isinstance(answer, dict) else [answer]
        found[name] = [np.asarray(part, dtype=float) for part in parts]
    return found


@pytest.mark.parametrize("data_type", ["latent_posterior_parameters", WITH_COUNTS])
@pytest.mark.parametrize("as_mudata", [True, False])
@pytest.mark.parametrize("config", [{}, {"latent_distribution": "ln", "encode_covariates": True}])
def test_answers_are_those_from_counts(
    as_mudata: bool, data_type: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    model = trained(make_cells(as_mudata=as_mudata), **config)
    before, expected = model.adata, answers(model)
    model.minify_adata(data_type)
    assert model.adata is not before
    assert model.minified_data_type == data_type
    model.save(tmp_path / "model", save_anndata=True)
    again = cellvae.load(tmp_path / "model")
    assert is_mudata(again.adata) == as_mudata
    for minified in (model, again):
        for name, found in answers(minified).items():
            for got, wanted in zip(found, expected[name], strict=True):
                np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5, err_msg=name)
    tables = model.adata.mod.values() if as_mudata else [model.adata]
    for table in tables:
        assert (table.X.nnz == 0) == (data_type != WITH_COUNTS)


def test_sizes_and_posterior_are_stored_by_name() -> None:
    model = trained(make_cells(as_mudata=True))
    sizes = model.get_library_size_factors(silent=True)
    mean, variance = model.get_latent_representation(return_dist=True)
    sums = model.rows.take(torch.arange(N_CELLS)).counts.sum(dim=1)
    names = model.adata.obs_names
    model.minify_mudata(use_latent_qzm_key="m", use_latent_qzv_key="v", silent=True)
    minified = model.adata
    np.testing.assert_array_equal(minified.obsm["m"], mean)
    np.testing.assert_allclose(minified.obsm["v"], variance, rtol=1e-6)
    np.testing.assert_allclose(
        np.exp(minified.obs["latent_log_library"]), sizes["expression"], 1e-5
    )
    np.testing.assert_allclose(
        np.exp(minified.obs["latent_log_depth"]), sizes["accessibility"], 1e-5
    )
    np.testing.assert_allclose(minified.obs["observed_lib_size"], sums)
    assert minified.obs_names.equals(names)
    del minified.obs["latent_log_depth"]
    with pytest.raises(DataMismatchError, match=r"obs\['latent_log_depth'\]"):
        model.adata = minified


@pytest.mark.parametrize("name", NEEDS_COUNTS)
def test_questions_that_need_counts_are_refused_without(name: str) -> None:
    cells = make_cells(as_mudata=True)
    model = trained(cells)
    torch.manual_seed(1)
    expected = getattr(model, name)(**NEEDS_COUNTS[name])
    model.minify_adata(WITH_COUNTS)
    torch.manual_seed(1)
    found = getattr(model, name)(**NEEDS_COUNTS[name])
    if name in ("get_elbo", "get_latent_representation"):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    model.minify_adata()
    with pytest.raises(DataMismatchError, match="with their counts"):
        getattr(model, name)(**NEEDS_COUNTS[name])
    getattr(model, name)(cells, **NEEDS_COUNTS[name])
    with pytest.raises(DataMismatchError, match="not minified to train"):
        model.train(1)


def test_cells_that_another_model_minified_are_refused() -> None:
    cells = make_cells(as_mudata=True)
    model, other = trained(cells), trained(cells, n_layers_encoder=1)
    model.minify_mudata()
    with pytest.raises(DataMismatchError, match="that this model has minified"):
        other.get_latent_representation(model.adata)


def test_only_a_mudata_is_minified_as_one() -> None:
    model = trained(make_cells(as_mudata=False))
    with pytest.raises(InvalidOptionError, match="has an AnnData. Call minify_adata"):
        model.minify_mudata()
    assert TOTALVI.minify_mudata is MULTIVI.minify_mudata
