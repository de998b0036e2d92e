"""AmortizedLDA: topics that are known, what a perplexity is, and no state that is shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyro
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from scipy.optimize import linear_sum_assignment

import cellvae
from cellvae.errors import DataMismatchError, DataWarning, InvalidOptionError, UnknownOptionError
from cellvae.model import AmortizedLDA

pytestmark = pytest.mark.trains

QUICK = {"accelerator": "cpu", "seed": 0, "enable_progress_bar": False}


def corpus(n_cells: int = 600) -> tuple[AnnData, np.ndarray, np.ndarray]:
    """Counts of three topics that share few features; topics of cells, features of topics."""
    random = np.random.default_rng(0)
    topics = random.dirichlet(np.full(30, 0.08), 3)
    cells = random.dirichlet(np.full(3, 0.3), n_cells)
    sizes = random.integers(80, 200, n_cells)
    shares = cells @ topics
    counts = np.stack([random.multinomial(n, p) for n, p in zip(sizes, shares, strict=True)])
    return AnnData(counts.astype(np.float32)), cells, topics


@pytest.fixture(scope="module")
def known() -> tuple[Any, AnnData, np.ndarray, np.ndarray]:
    """Model that has learned topics that are known."""
    adata, cells, topics = corpus()
    AmortizedLDA.setup_anndata(adata)
    torch.manual_seed(0)
    model = AmortizedLDA(adata, n_topics=3, n_hidden=32)
    kwargs = {"max_epochs": 150, "plan_kwargs": {"lr": 0.01}, "check_val_every_n_epoch": 1}
    model.train(**QUICK, **kwargs)
    return model, adata, cells, topics


def test_known_topics_are_found(known: Any) -> None:
    model, _, cells, topics = known
    found = model.get_feature_by_topic()
    assert found.shape == (30, 3) and list(found.columns) == ["topic_0", "topic_1", "topic_2"]
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-4)
    unit = [m / np.linalg.norm(m, axis=0) for m in (topics.T, found.to_numpy())]
    likeness = unit[0].T @ unit[1]
    order = linear_sum_assignment(-likeness)[1]
    assert likeness[np.arange(3), order].min() > 0.95
    shares = model.get_latent_representation().to_numpy()[:, order]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-4)
    assert np.abs(shares - cells).mean() < 0.08
    assert np.corrcoef(shares.ravel(), cells.ravel())[0, 1] > 0.95


def test_the_perplexity_is_just_above_that_of_the_truth(known: Any) -> None:
    model, adata, cells, topics = known
    truth = np.exp(-(adata.X * np.log(cells @ topics + 1e-300)).sum() / adata.X.sum())
    found = model.get_perplexity()
    assert 1 < truth * 0.98 < found < 1.25 * truth
    assert found < 30
    elbo = model.get_elbo() * adata.n_obs
    assert found == pytest.approx(np.exp(-elbo / adata.X.sum()), rel=0.01)
    some = model.get_perplexity(indices=model.validation_indices)
    assert truth * 0.9 < some < 2 * truth


def test_history_has_what_other_models_have(known: Any) -> None:
    model, adata, _, _ = known
    last = {name: model.history[name].iloc[-1, 0] for name in model.history}
    assert {"elbo_train", "elbo_validation", "kl_global_train", "train_loss"} <= set(last)
    n_train = len(model.train_indices)
    for split in ("train", "validation"):
        parts = (f"reconstruction_loss_{split}", f"kl_local_{split}")
        expected = sum(last[name] for name in parts) + last[f"kl_global_{split}"] / n_train
        assert last[f"elbo_{split}"] == pytest.approx(expected, rel=1e-6)
    whole = -model.get_elbo(indices=model.train_indices)
    assert last["elbo_train"] == pytest.approx(whole, rel=0.03)


def test_cells_come_in_the_order_asked_for(known: Any) -> None:
    model, adata, _, _ = known
    whole = model.get_latent_representation(n_samples=200)
    some = model.get_latent_representation(indices=[5, 2, 5], n_samples=200, batch_size=2)
    np.testing.assert_allclose(some, whole.iloc[[5, 2, 5]], rtol=1e-4, atol=1e-6)
    assert some.index.tolist() == [adata.obs_names[i] for i in (5, 2, 5)]
    exact = model.get_latent_representation(n_samples=20_000)
    assert np.abs(exact - whole).to_numpy().max() < 0.05


def test_topics_stop_early_and_the_best_come_back(cells: Callable[..., AnnData]) -> None:
    adata = cells()
    AmortizedLDA.setup_anndata(adata)
    model = AmortizedLDA(adata, n_topics=3, n_hidden=8)
    kwargs = {"early_stopping": True, "early_stopping_patience": 3, "max_epochs": 200}
    model.train(**QUICK, **kwargs, plan_kwargs={"lr": 0.05, "n_epochs_kl_warmup": 5})
    values = model.history["elbo_validation"].iloc[:, 0]
    assert len(values) < 200
    assert model.training_report.best_epoch == values.idxmin()


def test_models_share_nothing(cells: Callable[..., AnnData], tmp_path: Path) -> None:
    adata = cells()
    AmortizedLDA.setup_anndata(adata)
    pyro.clear_param_store()
    torch.manual_seed(0)
    first = AmortizedLDA(adata, n_topics=3, n_hidden=8)
    first.train(max_epochs=2, **QUICK)
    before = first.get_feature_by_topic(100)
    second = AmortizedLDA(adata, n_topics=4, n_hidden=8)
    second.train(max_epochs=2, **QUICK)
    first.save(tmp_path)
    again = cellvae.load(tmp_path, adata)
    assert before.equals(first.get_feature_by_topic(100))
    assert before.equals(again.get_feature_by_topic(100))
    assert not list(pyro.get_param_store())


def test_epochs_and_optimizer_are_its_own(cells: Callable[..., AnnData]) -> None:
    adata = cells()
    AmortizedLDA.setup_anndata(adata)
    model = AmortizedLDA(adata, n_topics=3)
    own = model.train_defaults({})
    assert own["max_epochs"] == 1_000
    assert own["plan_kwargs"] == {"eps": 1e-8, "weight_decay": 0.0}
    assert "max_epochs" not in model.train_defaults({"max_epochs": 3})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_topics": 1}, "n_topics to be at least 2"),
        ({"cell_topic_prior": 0.0}, "cell_topic_prior to be above 0"),
        ({"cell_topic_prior": (1.0, 2.0)}, "cell_topic_prior to be 3 numbers; got 2"),
        ({"topic_feature_prior": [0.1] * 5}, "topic_feature_prior to be 12 numbers; got 5"),
        ({"topic_feature_priors": 1.0}, "Did you mean 'topic_feature_prior'"),
    ],
)
def test_bad_options_are_refused(cells: Callable[..., AnnData], config: Any, message: str) -> None:
    adata = cells()
    AmortizedLDA.setup_anndata(adata)
    with pytest.raises((InvalidOptionError, UnknownOptionError), match=message):
        AmortizedLDA(adata, **{"n_topics": 3, **config})


def test_questions_without_an_answer_are_refused(known: Any) -> None:
    model, adata, _, _ = known
    with pytest.raises(InvalidOptionError, match="n_samples"):
        model.get_latent_representation(n_samples=0)
    with pytest.raises(InvalidOptionError, match="n_samples"):
        model.get_feature_by_topic(n_samples=0)
    empty = adata[:3].copy()
    empty.X = empty.X * 0
    with (
        pytest.warns(DataWarning, match="3 of 3 cells without"),
        pytest.raises(InvalidOptionError, match="with counts"),
    ):
        model.get_perplexity(empty)
    with pytest.raises(InvalidOptionError, match="cannot be minified"):
        model.minify_adata()
    with pytest.raises(DataMismatchError, match="missing"):
        model.get_latent_representation(adata[:, :5].copy())


def test_blood_cells_have_the_topics_of_their_kinds(shared_data: Path) -> None:
    whole = anndata.read_h5ad(shared_data / "pbmc3k.h5ad")[::2].copy()
    logs = sc.pp.log1p(sc.pp.normalize_total(whole, target_sum=1e4, copy=True), copy=True)
    sc.pp.highly_variable_genes(logs, n_top_genes=600)
    markers = {
        "B": ["CD79A", "CD79B", "MS4A1", "TCL1A"],
        "monocyte": ["LYZ", "S100A8", "S100A9", "FCN1"],
        "cytotoxic": ["NKG7", "GNLY", "GZMB", "CST7"],
    }
    named = whole.var_names.isin(sum(markers.values(), []))
    cells = whole[:, logs.var["highly_variable"].to_numpy() | named].copy()
    AmortizedLDA.setup_anndata(cells)
    torch.manual_seed(1)
    model = AmortizedLDA(cells, n_topics=6)
    model.train(max_epochs=40, **(QUICK | {"seed": 1}), batch_size=64, plan_kwargs={"lr": 0.01})
    shares = model.get_latent_representation(n_samples=100)
    likest = {}
    for kind, genes in markers.items():
        score = np.log1p(np.asarray(cells[:, genes].X.sum(axis=1)).ravel())
        likeness = shares.corrwith(pd.Series(score, index=shares.index))
        assert likeness.max() > 0.5, kind
        likest[kind] = likeness.idxmax()
    assert len(set(likest.values())) == 3
    assert 1 < model.get_perplexity() < cells.n_vars
