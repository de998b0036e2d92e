"""Normalized expression against the network, closed forms and second ways to compute it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from cellvae.errors import InvalidOptionError, NotTrainedError, UnknownKeyError
from cellvae.inference import posterior_samples as module_of_draws
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.posterior_samples import decode_samples, sample_latent
from cellvae.model import SCVI

pytestmark = pytest.mark.trains


def seeded(model: SCVI, **kwargs: Any) -> Any:
    """Expression from the same draws every time."""
    torch.manual_seed(0)
    return model.get_normalized_expression(**kwargs)


def by_hand(model: SCVI, key: str, code: int | None = None) -> np.ndarray:
    """Decoded expression of all cells from the draw that `seeded` makes."""
    torch.manual_seed(0)
    with inference_mode(model):
        (_, batch), *_ = plan_pass(model, None, None, 128).iter_batches()
        latent = sample_latent(model.module, batch)
        return decode_samples(model.module, latent, batch, code).get_normalized(key)[0].numpy()


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "normal"])
def test_expression_is_the_scale_of_the_decoder(
    likelihood: str, trained: Callable[..., SCVI]
) -> None:
    model = trained(gene_likelihood=likelihood)
    frame = seeded(model)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.index) == list(model.adata.obs_names)
    assert list(frame.columns) == list(model.adata.var_names)
    assert (frame.dtypes == np.float32).all()
    np.testing.assert_allclose(frame, by_hand(model, "scale"), rtol=1e-5)
    np.testing.assert_allclose(frame.sum(axis=1), 1, rtol=1e-5)


def test_library_sizes_scale_expression(trained: Callable[..., SCVI]) -> None:
    model = trained()
    share = seeded(model, return_numpy=True)
    np.testing.assert_allclose(
        seeded(model, library_size=1e4, return_numpy=True), share * 1e4, rtol=1e-5
    )
    sizes = model.adata.X.sum(axis=1, keepdims=True)
    latent = seeded(model, library_size="latent", return_numpy=True)
    np.testing.assert_allclose(latent, share * sizes, rtol=1e-4)


def test_expression_with_size_factors_is_per_unit_of_size(trained: Callable[..., SCVI]) -> None:
    model = trained({"batch_key": "batch", "size_factor_key": "size"})
    scale = seeded(model, return_numpy=True)
    latent = seeded(model, return_numpy=True, library_size="latent")
    sizes = model.adata.obs["size"].to_numpy()[:, None]
    np.testing.assert_allclose(latent, scale * sizes, rtol=1e-4)


def test_genes_come_in_the_order_asked(trained: Callable[..., SCVI]) -> None:
    model = trained()
    whole = seeded(model)
    genes = ["gene7", "gene0", "gene3"]
    pd.testing.assert_frame_equal(seeded(model, gene_list=genes), whole[genes])
    pd.testing.assert_frame_equal(seeded(model, gene_list=pd.Index(genes)), whole[genes])
    pd.testing.assert_frame_equal(seeded(model, gene_list="gene3"), whole[["gene3"]])


def test_genes_of_other_data_are_matched_by_name(trained: Callable[..., SCVI]) -> None:
    model = trained()
    other = model.adata[:, ::-1].copy()
    frame = seeded(model, adata=other, gene_list=["gene2", "gene9"])
    pd.testing.assert_frame_equal(frame, seeded(model)[["gene2", "gene9"]])


def test_cells_come_in_the_order_asked(trained: Callable[..., SCVI]) -> None:
    model = trained()
    asked = [7, 3, 50, 3]
    frame = model.get_normalized_expression(indices=asked, n_samples=4_000)
    whole = model.get_normalized_expression(n_samples=4_000)
    assert list(frame.index) == ["cell7", "cell3", "cell50", "cell3"]
    np.testing.assert_allclose(frame, whole.iloc[asked], rtol=0.05)
    mask = np.arange(60) < 5
    assert list(model.get_normalized_expression(indices=mask).index) == [
        f"cell{i}" for i in range(5)
    ]


def test_several_batches_are_averaged(trained: Callable[..., SCVI]) -> None:
    model = trained()
    parts = [by_hand(model, "scale", code) for code in (2, 0)]
    frame = seeded(model, transform_batch=["b2", "b0"])
    np.testing.assert_allclose(frame, np.mean(parts, axis=0), rtol=1e-5)
    np.testing.assert_allclose(seeded(model, transform_batch="b2"), parts[0], rtol=1e-5)
    assert not np.allclose(parts[0], parts[1], rtol=1e-3)
    pd.testing.assert_frame_equal(seeded(model, transform_batch=[None]), seeded(model))


def test_means_are_those_of_the_draws(
    trained: Callable[..., SCVI], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(use_observed_lib_size=False)
    kwargs = {"n_samples": 7, "library_size": "latent", "transform_batch": ["b0", "b1"]}
    draws = seeded(model, return_mean=False, batch_size=25, **kwargs)
    assert draws.shape == (7, 60, 10)
    assert (draws.std(axis=0) > 0).all()
    mean = seeded(model, batch_size=25, **kwargs)
    np.testing.assert_allclose(mean, draws.mean(axis=0), rtol=1e-5)
    # However few draws are decoded at a time.
    monkeypatch.setattr(module_of_draws, "MAX_DECODED_ELEMENTS", 25 * 10 * 2)
    np.testing.assert_allclose(seeded(model, batch_size=25, **kwargs), mean, rtol=1e-5)
    assert np.allclose(seeded(model, return_mean=False, batch_size=25, **kwargs), draws, rtol=1e-5)


def test_draws_in_all_are_of_cells_chosen_at_random(trained: Callable[..., SCVI]) -> None:
    model = trained()
    frame = seeded(model, n_samples_overall=6_000, indices=range(20), gene_list=["gene1", "gene0"])
    assert frame.shape == (6_000, 2)
    assert set(frame.index) == {f"cell{i}" for i in range(20)}
    counts = frame.index.value_counts()
    assert np.sum((counts - 300) ** 2 / 300) < 50  # chi square with 19 degrees of freedom
    each = model.get_normalized_expression(indices=range(20), n_samples=3_000)[["gene1", "gene0"]]
    np.testing.assert_allclose(frame.mean(), each.mean(), rtol=0.03)
    np.testing.assert_allclose(frame.groupby(level=0).mean().loc["cell3"], each.loc["cell3"], 0.06)
    array = seeded(model, n_samples_overall=50, return_numpy=True)
    assert isinstance(array, np.ndarray)
    assert array.shape == (50, 10)


def test_importance_brings_means_to_the_true_posterior(trained: Callable[..., SCVI]) -> None:
    """Against importance sampling from the prior, the brute force of one cell and many draws."""
    model = trained()
    with inference_mode(model):
        (_, batch), *_ = plan_pass(model, None, [4], 1).iter_batches()
        latent = sample_latent(model.module, batch)
        torch.manual_seed(1)
        prior = latent._replace(sample=torch.randn(200_000, 1, 3), log_library=latent.log_library)
        counts = decode_samples(model.module, prior, batch)
        log_likelihood = counts.log_prob(batch.counts).sum(dim=-1).double()
        true = (log_likelihood.softmax(dim=0).unsqueeze(-1) * counts.get_normalized("scale")).sum(0)
    true = true.numpy()
    weighted = seeded(model, indices=[4], n_samples=50_000, weights="importance")
    plain = seeded(model, indices=[4], n_samples=50_000)
    np.testing.assert_allclose(weighted, true, rtol=0.02)
    assert np.abs(weighted - true).to_numpy().max() < np.abs(plain - true).to_numpy().max() / 4
    chosen = seeded(model, indices=[4], n_samples_overall=4_000, weights="importance")
    error = (chosen.std() / np.sqrt(4_000)).to_numpy()
    gap = np.abs(chosen.mean().to_numpy() - true)
    assert (gap < np.abs(plain.to_numpy() - true) / 2 + 4.5 * error).all()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_can_be_written_to_a_file(
    suffix: str, trained: Callable[..., SCVI], tmp_path: Path
) -> None:
    if suffix == "zarr":
        pytest.importorskip("zarr", minversion="3")
    read = {"h5ad": anndata.read_h5ad, "zarr": anndata.read_zarr}[suffix]
    model = trained()
    path = tmp_path / f"x.{suffix}"
    kwargs = {"batch_size": 16, "n_samples": 2, "gene_list": ["gene5", "gene1"]}
    assert seeded(model, out=str(path), **kwargs) == path
    written = read(path)
    pd.testing.assert_frame_equal(written.to_df(), seeded(model, **kwargs), check_names=False)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(InvalidOptionError, match="does not exist yet"):
        model.get_normalized_expression(out=path)
    overall = tmp_path / f"overall.{suffix}"
    seeded(model, out=overall, n_samples_overall=100)
    drawn = seeded(model, n_samples_overall=100)
    written = read(overall)
    assert list(written.obs["cell"]) == list(drawn.index)
    np.testing.assert_array_equal(written.X, drawn)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_an_interrupted_file_leaves_nothing(
    suffix: str, trained: Callable[..., SCVI], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == "zarr":
        pytest.importorskip("zarr", minversion="3")
    model = trained()
    kept, calls = type(model.module).decode, []

    def decode(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kept(*arguments)

    monkeypatch.setattr(type(model.module), "decode", decode)
    with pytest.raises(KeyboardInterrupt):
        model.get_normalized_expression(out=tmp_path / f"x.{suffix}", batch_size=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"gene_list": ["gene1", "gene11"]}, UnknownKeyError, "1 other: 'gene11'. Did you mean"),
        ({"gene_list": []}, InvalidOptionError, "at least one gene"),
        ({"transform_batch": "b3"}, UnknownKeyError, "'b0', 'b1', 'b2'; got 'b3'"),
        ({"transform_batch": []}, InvalidOptionError, "at least one batch"),
        ({"library_size": "latnet"}, InvalidOptionError, "Did you mean 'latent'"),
        ({"library_size": 0}, InvalidOptionError, "positive number or 'latent'; got 0"),
        ({"library_size": True}, InvalidOptionError, "got True"),
        ({"n_samples": 0}, InvalidOptionError, "n_samples to be at least 1; got 0"),
        ({"n_samples_overall": 0}, InvalidOptionError, "n_samples_overall to be at least 1"),
        ({"n_samples": 2, "n_samples_overall": 9}, InvalidOptionError, "one of n_samples"),
        ({"weights": "importence"}, InvalidOptionError, "Did you mean 'importance'"),
        ({"weights": "importance"}, InvalidOptionError, "several samples to weight"),
        (
            {"n_samples": 2, "return_mean": False, "return_numpy": False},
            InvalidOptionError,
            "two dimensions for a DataFrame",
        ),
        (
            {"n_samples": 2, "return_mean": False, "out": "x.h5ad"},
            InvalidOptionError,
            "two dimensions for a file",
        ),
        ({"out": "x.csv"}, InvalidOptionError, "ends in .h5ad or .zarr; got 'x.csv'"),
        ({"out": "nowhere/x.zarr"}, InvalidOptionError, "folder for 'nowhere"),
        ({"out": "x.zarr", "return_numpy": True}, InvalidOptionError, "either out or return_numpy"),
        ({"indices": []}, InvalidOptionError, "at least one cell"),
        ({"batch_size": 0}, InvalidOptionError, "batch_size of at least 1; got 0"),
    ],
)
def test_what_cannot_be_is_refused_before_the_pass(
    kwargs: dict[str, Any],
    error: type[Exception],
    message: str,
    trained: Callable[..., SCVI],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trained()
    monkeypatch.setattr(type(model.module), "encode", None)
    with pytest.raises(error, match=message):
        model.get_normalized_expression(**kwargs)


def test_a_model_must_be_trained(trained: Callable[..., SCVI]) -> None:
    with pytest.raises(NotTrainedError):
        SCVI(trained().adata).get_normalized_expression()
