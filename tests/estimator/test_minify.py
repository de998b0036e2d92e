"""Minified data: the same answers without counts, and clear words where counts are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData, read_h5ad
from scipy import sparse

import cellvae
from cellvae.errors import (
    DataMismatchError,
    InvalidDataError,
    InvalidOptionError,
    NotTrainedError,
)
from cellvae.inference import PosteriorPredictiveCheck
from cellvae.model import SCVI

pytestmark = pytest.mark.trains

WITH_COUNTS = "latent_posterior_parameters_with_counts"

ANSWERS: dict[str, dict[str, Any]] = {
    "get_latent_representation": {},
    "get_normalized_expression": {"return_numpy": True, "n_samples": 3, "transform_batch": "b1"},
    "get_latent_library_size": {},
    "posterior_predictive_sample": {},
    "get_batch_representation": {},
    "get_likelihood_parameters": {"give_mean": True},
    "get_feature_correlation_matrix": {"n_samples": 2},
}

NEEDS_COUNTS: dict[str, dict[str, Any]] = {
    "get_elbo": {},
    "get_reconstruction_error": {},
    "get_marginal_ll": {"n_mc_samples": 2},
    "get_normalized_expression": {"weights": "importance", "n_samples": 2},
}


def answered(model: SCVI, name: str, **kwargs: Any) -> list[np.ndarray]:
    """Answer with the same random numbers every time, as arrays."""
    torch.manual_seed(3)
    answer = getattr(model, name)(**kwargs)
    if sparse.issparse(answer):
        return [answer.toarray()]
    if isinstance(answer, dict):
        return [*answer.values()]
    return [np.asarray(answer)]


CONFIGS = pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_observed_lib_size": False},
        {"latent_distribution": "ln", "gene_likelihood": "nb"},
        {"encode_covariates": True, "dispersion": "gene-batch"},
    ],
)


@CONFIGS
@pytest.mark.parametrize("data_type", ["latent_posterior_parameters", WITH_COUNTS])
def test_answers_are_those_from_counts(
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
    adata: AnnData,
    config: dict[str, Any],
    data_type: Any,
) -> None:
    model = train(make(adata, batch_representation="embedding", **config), max_epochs=2)
    expected = {name: answered(model, name, **kwargs) for name, kwargs in ANSWERS.items()}
    model.minify_adata(data_type)
    assert model.minified_data_type == data_type
    for name, kwargs in ANSWERS.items():
        for got, wanted in zip(answered(model, name, **kwargs), expected[name], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5, err_msg=name)
    few = model.get_latent_representation(indices=["cell5", "cell2"], batch_size=1)
    if model.module.latent_is_gaussian:
        assert np.array_equal(few, expected["get_latent_representation"][0][[5, 2]])


def test_the_cells_before_stay_as_they_are(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    adata.layers["more"], adata.obsm["X_pca"] = adata.X.copy(), np.zeros((70, 2))
    model = train(make(adata))
    mean, variance = model.get_latent_representation(return_dist=True)
    obs, sums = adata.obs.copy(), adata.X.sum(axis=1)
    model.minify_adata(use_latent_qzm_key="m", use_latent_qzv_key="v")
    small = model.adata
    assert small is not adata
    assert adata.obs.equals(obs)
    assert set(adata.obsm) == {"X_pca"}
    assert set(adata.uns) == {"cellvae"}
    assert small.shape == adata.shape
    for matrix in (small.X, small.layers["more"]):
        assert sparse.issparse(matrix)
        assert matrix.shape == adata.shape
        assert matrix.nnz == 0
    assert small.raw is None
    assert small.uns["_scvi_adata_minify_type"] == "latent_posterior_parameters"
    assert set(small.obsm) == {"X_pca", "m", "v"}
    assert np.array_equal(small.obsm["m"], mean)
    np.testing.assert_allclose(small.obsm["v"], variance, rtol=1e-6)
    np.testing.assert_allclose(small.obs["observed_lib_size"], sums)
    assert small.obs.drop(columns="observed_lib_size").equals(obs)
    assert np.array_equal(model.get_latent_representation(adata), mean)  # by the encoder


@pytest.mark.parametrize("name", NEEDS_COUNTS)
def test_questions_that_need_counts_are_refused_without(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData, name: str
) -> None:
    model = train(make(adata))
    kwargs = NEEDS_COUNTS[name]
    model.minify_adata(WITH_COUNTS)
    assert all(np.isfinite(x).all() for x in answered(model, name, **kwargs))
    model.minify_adata()
    with pytest.raises(DataMismatchError, match="with their counts"):
        getattr(model, name)(**kwargs)
    assert all(np.isfinite(x).all() for x in answered(model, name, adata=adata, **kwargs))
    with pytest.raises(DataMismatchError, match="with their counts"):
        PosteriorPredictiveCheck(model.adata, {"a": model})
    with pytest.raises(DataMismatchError, match="with their counts"):
        model.minify_adata()


def test_differential_expression_needs_no_counts(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    model = train(make(adata, gene_likelihood="nb"), max_epochs=3)

    def table(**kwargs: Any) -> pd.DataFrame:
        torch.manual_seed(1)
        kwargs = {"n_samples_overall": 200, "all_stats": False, "silent": True} | kwargs
        return model.differential_expression(groupby="label", **kwargs).sort_index()

    given = [{"mode": "vanilla"}, {"pseudocounts": 1e-4}, {"delta": None, "pseudocounts": 1e-4}]
    expected = [table(**kwargs) for kwargs in given]
    model.minify_adata()
    for kwargs, wanted in zip(given, expected, strict=True):
        pd.testing.assert_frame_equal(table(**kwargs), wanted, rtol=1e-3, atol=0.02)
    assert table()["pseudocounts"].unique() == pytest.approx([1e-10])  # no gene is unexpressed
    with pytest.raises(DataMismatchError, match="with their counts"):
        table(all_stats=True)
    with pytest.raises(DataMismatchError, match="with their counts"):
        table(weights="importance")


def test_the_pseudocount_is_estimated_from_expected_counts(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    adata.X[:, :4] = 0
    model = train(make(adata), max_epochs=30, plan_kwargs={"lr": 0.05})
    kwargs: dict[str, Any] = {"groupby": "label", "all_stats": False, "silent": True}
    torch.manual_seed(1)
    from_counts = model.differential_expression(**kwargs)
    model.minify_adata()
    torch.manual_seed(1)
    without = model.differential_expression(**kwargs)
    assert from_counts["pseudocounts"].min() > 1e-10
    np.testing.assert_allclose(
        without["pseudocounts"].to_numpy(), from_counts["pseudocounts"].to_numpy(), rtol=0.5
    )


@pytest.mark.parametrize("data_type", ["latent_posterior_parameters", WITH_COUNTS])
def test_minified_models_are_saved_and_loaded(
    make: Callable[..., SCVI],
    train: Callable[..., SCVI],
    adata: AnnData,
    tmp_path: Path,
    data_type: Any,
) -> None:
    model = train(make(adata, use_observed_lib_size=False))
    model.minify_adata(data_type)
    expected = {n: answered(model, n, **ANSWERS[n]) for n in list(ANSWERS)[:3]}
    model.save(tmp_path / "model", save_anndata=True)
    with_cells = cellvae.load(tmp_path / "model")
    assert with_cells.minified_data_type == data_type
    model.adata.write_h5ad(tmp_path / "small.h5ad")
    with_others = SCVI.load(tmp_path / "model", read_h5ad(tmp_path / "small.h5ad")[::-1].copy())
    for name, wanted in expected.items():
        assert np.array_equal(answered(with_cells, name, **ANSWERS[name])[0], wanted[0])
    assert np.array_equal(
        with_others.get_latent_representation(),
        expected["get_latent_representation"][0][::-1],
    )
    with_counts = SCVI.load(tmp_path / "model", adata)
    assert with_counts.minified_data_type is None
    assert np.isfinite(with_counts.get_elbo())
    with_counts.view_anndata_setup(model.adata)


def test_the_file_is_small(
    make: Callable[..., SCVI], train: Callable[..., SCVI], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    adata = AnnData(random.poisson(1.0, (300, 400)).astype(np.float32))
    adata.obs["batch"] = "a"
    model = train(make(adata))
    adata.write_h5ad(tmp_path / "full.h5ad")
    model.minify_adata()
    model.adata.write_h5ad(tmp_path / "small.h5ad")
    full, small = ((tmp_path / f"{n}.h5ad").stat().st_size for n in ("full", "small"))
    assert small < full / 3


def test_nothing_is_trained_on_minified_cells(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    model = train(make(adata))
    for data_type in (WITH_COUNTS, "latent_posterior_parameters"):
        model.minify_adata(data_type)
        with pytest.raises(DataMismatchError, match="not minified to train a model"):
            train(model)
        for search in (model.lr_find, model.find_batch_size):
            with pytest.raises(DataMismatchError, match="not minified to search a"):
                search()
        assert repr(model).endswith(f"minified, {data_type}")
        SCVI.setup_anndata(model.adata, batch_key="batch")
        with pytest.raises(DataMismatchError, match="not minified to make a model"):
            SCVI(model.adata)


def test_an_anndata_that_holds_the_latent_can_be_set_up_and_loaded(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData, tmp_path: Path
) -> None:
    model = train(make(adata))
    latent = model.get_latent_representation()
    model.save(tmp_path / "model")
    model.minify_adata()
    small = model.adata
    del small.uns["cellvae"]
    SCVI.setup_anndata(small, batch_key="batch")
    again = SCVI.load(tmp_path / "model", small)
    assert np.array_equal(again.get_latent_representation(), latent)
    small.obs["batch"] = "b9"
    with pytest.raises(DataMismatchError, match="b9"):
        SCVI.load(tmp_path / "model", small)


def test_the_latent_of_another_model_is_refused(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    first, second = train(make(adata)), train(make(adata), max_epochs=2)
    first.minify_adata()
    with pytest.raises(DataMismatchError, match="that of another model"):
        second.get_latent_representation(first.adata)
    with pytest.raises(DataMismatchError, match="that of another model"):
        second.view_anndata_setup(first.adata)


def test_what_is_missing_or_wrong_is_named(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData
) -> None:
    untrained = make(adata)
    with pytest.raises(NotTrainedError):
        untrained.minify_adata()
    model = train(untrained)
    with pytest.raises(InvalidOptionError, match="Did you mean 'latent_posterior_parameters'"):
        model.minify_adata("latent_posterior_parameter")
    with pytest.raises(InvalidOptionError, match="two different keys"):
        model.minify_adata(use_latent_qzm_key="z", use_latent_qzv_key="z")
    assert model.minified_data_type is None
    model.minify_adata()
    without = model.adata.copy()
    del without.obsm["X_latent_qzv"], without.obs["observed_lib_size"]
    with pytest.raises(DataMismatchError, match=r"obsm\['X_latent_qzv'\].*observed_lib_size"):
        model.get_latent_representation(without)
    without.uns["cellvae_minified"] = {"data_type": "x"}
    with pytest.raises(InvalidDataError, match="minify again"):
        model.get_latent_representation(without)


def test_cells_on_disk_can_be_minified(
    make: Callable[..., SCVI], train: Callable[..., SCVI], adata: AnnData, tmp_path: Path
) -> None:
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for data_type in ("latent_posterior_parameters", WITH_COUNTS):
        model = train(make(read_h5ad(tmp_path / "cells.h5ad", backed="r")))
        latent = model.get_latent_representation()
        model.minify_adata(data_type)
        assert not model.adata.isbacked
        assert np.array_equal(model.get_latent_representation(), latent)


def test_real_cells_answer_alike(shared_data: Path) -> None:
    adata = read_h5ad(shared_data / "kang_ctrl_8donors.h5ad")[::12].copy()
    SCVI.setup_anndata(adata, batch_key="donor")
    model = SCVI(adata, n_hidden=32)
    model.train(max_epochs=3, accelerator="cpu", seed=0, enable_progress_bar=False)
    kwargs = {"n_samples": 4, "library_size": 1e4, "return_numpy": True}
    (expected,) = answered(model, "get_normalized_expression", **kwargs)
    latent = model.get_latent_representation()
    model.minify_adata()
    (got,) = answered(model, "get_normalized_expression", **kwargs)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
    assert np.array_equal(model.get_latent_representation(), latent)
