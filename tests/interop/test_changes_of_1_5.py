"""What scvi-tools 1.5 changed, as far as it concerns the models here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import cellvae as scvi
from cellvae.errors import InvalidDataError, InvalidOptionError, TrainingWarning
from cellvae.train.loop.optimizers import make_optimizer
from cellvae.train.options.optimizer_options import (
    OptimizerOptions,
)

pytestmark = pytest.mark.trains


def cells(seed: int = 0) -> AnnData:
    random = np.random.default_rng(seed)
    counts = random.poisson(random.gamma(2.0, 2.0, (2, 15))[np.arange(60) % 2])
    adata = AnnData(counts.astype(np.float32))
    adata.obs["batch"] = np.array(["a", "b"])[np.arange(60) // 30]
    adata.obs["labels"] = np.array(["x", "y", "unknown"])[np.arange(60) % 3]
    return adata


def trained(kind: Any, adata: AnnData, **config: Any) -> Any:
    kind.setup_anndata(adata, batch_key="batch")
    model = kind(adata, n_hidden=8, n_latent=3, **config)
    model.train(max_epochs=3, accelerator="cpu", seed=0, enable_progress_bar=False)
    return model


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_fused_optimizers_move_weights_as_others_do(optimizer: str) -> None:
    found = {}
    for fused in (True, False):
        adata = cells()
        scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
        torch.manual_seed(0)
        model = scvi.model.SCVI(adata, n_hidden=8, n_latent=3)
        plan = {"optimizer": optimizer, "fused_optimizer": fused, "lr": 1e-2, "weight_decay": 1e-3}
        model.train(
            max_epochs=5, accelerator="cpu", seed=0, plan_kwargs=plan, enable_progress_bar=False
        )
        found[fused] = model.history["elbo_train"].to_numpy()
    np.testing.assert_allclose(found[True], found[False], rtol=1e-4)
    assert found[True][-1] < found[True][0] - 1


def test_optimizers_are_fused_unless_that_is_turned_off() -> None:
    module = torch.nn.Linear(2, 2)
    assert make_optimizer(module, OptimizerOptions()).defaults["fused"] is True
    plain = make_optimizer(module, OptimizerOptions(fused_optimizer=False))
    assert plain.defaults["fused"] is False


def test_a_query_trains_the_vectors_of_its_new_batches_alone() -> None:
    reference = trained(scvi.model.SCVI, cells(), batch_representation="embedding")
    query = cells(1)
    query.obs["batch"] = [f"new {batch}" for batch in query.obs["batch"]]
    model = scvi.model.SCVI.load_query_data(query, reference)
    before = model.module.batch_embedding.weight.detach().clone()
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
    moved = (model.module.batch_embedding.weight.detach() != before).any(dim=1)
    assert moved.tolist() == [False, False, True, True]


@pytest.mark.parametrize("known", [True, False])
def test_cells_of_a_query_without_a_batch_are_named(known: bool) -> None:
    reference = trained(scvi.model.SCVI, cells())
    query = cells(1)
    batches = query.obs["batch"].astype(object) if known else np.full(60, "c", dtype=object)
    query.obs["batch"] = np.where(np.arange(60) == 7, np.nan, batches)
    with pytest.raises(InvalidDataError, match=r"obs\['batch'\]; got 1 missing, in cells '7'"):
        scvi.model.SCVI.load_query_data(query, reference)
    kept = query[query.obs["batch"].notna()].copy()
    assert scvi.model.SCVI.load_query_data(kept, reference).summary_stats.n_cells == 59


def test_loadings_and_labels_need_no_cells(tmp_path: Path) -> None:
    linear = trained(scvi.model.LinearSCVI, cells())
    linear.save(tmp_path / "linear")
    again = scvi.model.LinearSCVI.load(tmp_path / "linear")
    assert again.adata is None
    assert again.get_loadings().equals(linear.get_loadings())
    adata = cells()
    scvi.model.SCANVI.setup_anndata(adata, "labels", "unknown")
    model = scvi.model.SCANVI(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.save(tmp_path / "labels")
    loaded = scvi.model.SCANVI.load(tmp_path / "labels")
    assert ({*loaded.labels}, loaded.n_labels) == ({"x", "y"}, 2)
    assert np.isin(loaded.predict(adata), ["x", "y"]).all()


def test_samples_are_judged_for_a_part_of_the_cells() -> None:
    model = trained(scvi.model.SCVI, cells())
    part = model.adata[[40, 35, 50]].copy()
    table = model.differential_abundance(adata_sub=part, sample_key="batch")
    assert [*table.columns] == ["a", "b"]  # all samples, not those of the part alone
    assert table.index.equals(part.obs_names)


@pytest.mark.parametrize(
    ("n_obs", "kwargs", "epochs"),
    [
        (100, {}, 400),
        (20_000, {}, 400),
        (40_000, {}, 200),
        (90_000, {}, 89),
        (40_000, {"epochs_cap": 100, "decay_at_n_obs": 10_000}, 25),
    ],
)
def test_epochs_become_fewer_with_many_cells(
    n_obs: int, kwargs: dict[str, int], epochs: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scvi.model.get_max_epochs_heuristic(n_obs, **kwargs) == epochs


def test_one_epoch_is_the_least() -> None:
    with pytest.warns(TrainingWarning, match="1 epoch"):
        assert scvi.model.get_max_epochs_heuristic(100_000_000) == 1
    with pytest.raises(InvalidOptionError, match="n_obs to be at least 1; got 0"):
        scvi.model.get_max_epochs_heuristic(0)
