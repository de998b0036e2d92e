"""A space is checked before any trial: names, values at all ends, and combinations."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import cellvae
from cellvae import tune
from cellvae.errors import (
    CellvaeError,
    InvalidOptionError,
    NotSetUpError,
    ResumeError,
    UnknownOptionError,
)
from cellvae.model import SCVI
from cellvae.tune.domains import Choice, Interval, domain_of, is_domain
from cellvae.tune.run_search import check_search, search_folder, write_record
from cellvae.tune.search_cells import SharedCells
from cellvae.tune.search_options import SearchOptions
from cellvae.tune.search_space import merge_params, split_params, values_at_ends

SETUP = {"batch_key": "batch", "labels_key": "label"}


@pytest.fixture
def cells_set_up(adata: AnnData) -> AnnData:
    SCVI.setup_anndata(adata, **SETUP)
    return adata


@pytest.mark.parametrize(
    ("space", "metric", "error", "message"),
    [
        ({"n_latnt": tune.choice([1, 2])}, "elbo_validation", UnknownOptionError, "n_latent"),
        (
            {"train_params": {"plan_kwargs": {"lrr": tune.uniform(0, 1)}}},
            "elbo_validation",
            UnknownOptionError,
            "'lrr'.*'lr'",
        ),
        ({"model_parms": {}}, "elbo_validation", UnknownOptionError, "model_parms"),
        ({"model_params": {"n_latent": tune.choice([5, -5])}}, "elbo_validation", None, "n_latent"),
        ({"n_latent": tune.randint(0, 5)}, "elbo_validation", None, "n_latent"),
        ({"gene_likelihood": tune.choice(["nb", "znib"])}, "elbo_validation", None, "zinb"),
        ({"max_epochs": tune.choice([1, "two"])}, "elbo_validation", None, "max_epochs"),
        ({"n_latent": 3, "seed": tune.choice([1, 2])}, "elbo_validation", None, "seed"),
        ({"n_latent": tune.choice([3])}, "elbo_validaton", None, "elbo_validation"),
        ({"n_latent": tune.choice([3])}, "eval/ilsi", None, "ilisi"),
        ({}, "elbo_validation", None, "dictionary"),
        ({"model_params": [1]}, "elbo_validation", None, "model_params"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_trial(
    cells_set_up: AnnData, space: Any, metric: str, error: type[CellvaeError] | None, message: str
) -> None:
    with pytest.raises(error or InvalidOptionError, match=message):
        check_search(SCVI, cells_set_up, space, (metric,), {})


def test_cells_that_were_not_set_up_and_other_classes_are_refused(adata: AnnData) -> None:
    with pytest.raises(NotSetUpError):
        check_search(SCVI, adata, {"n_latent": tune.choice([3])}, ("elbo_validation",), {})
    with pytest.raises(InvalidOptionError, match="class of a model"):
        check_search(dict, adata, {"n_latent": tune.choice([3])}, ("elbo_validation",), {})  # type: ignore[arg-type]


def test_scores_of_integration_bring_their_callbacks(cells_set_up: AnnData) -> None:
    space = {"n_latent": tune.choice([3, 4])}
    metrics = ("eval/ilisi", "elbo_validation", "Total")
    _, callbacks, model = check_search(SCVI, cells_set_up, space, metrics, {"n_cells": 50})
    first, second = callbacks
    assert first.produced_metrics() == ["eval/ilisi"] and first.n_cells == 50
    assert first.batch_key == "batch" and first.label_key == "label"
    assert "Total" in second.produced_metrics() and model.config.n_latent == 3


def test_values_of_domains() -> None:
    assert values_at_ends(tune.randint(2, 10)) == [2, 9]
    assert values_at_ends(tune.loguniform(1e-3, 1.0)) == [1e-3, 1.0]
    assert values_at_ends(tune.choice([1, {"a": tune.uniform(0, 2)}])) == [1, {"a": 0}, {"a": 2}]
    assert values_at_ends({"grid_search": [4, 5]}) == [4, 5]
    assert not is_domain("lower") and not is_domain({"lr": 1}) and not is_domain(np.float64(2))
    for wrong in ((2, 1), (0.0, np.inf), ("a", "b"), (True, False)):
        with pytest.raises(InvalidOptionError, match="lower first"):
            tune.uniform(*wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="above 0"):
        tune.loguniform(0.0, 1.0)
    with pytest.raises(InvalidOptionError, match="list of values"):
        tune.choice([])


def test_fixed_and_varying_options_are_parted_and_merged() -> None:
    lr = tune.uniform(0, 1)
    given = {"plan_kwargs": {"lr": lr, "eps": 1}, "max_epochs": 3, "n": tune.choice([1]), "e": {}}
    fixed, varying = split_params(given)
    assert fixed == {"plan_kwargs": {"eps": 1}, "max_epochs": 3, "e": {}}
    assert varying == {"plan_kwargs": {"lr": lr}, "n": tune.choice([1])}
    assert merge_params(fixed, varying) == given


def test_domains_of_ray_are_read() -> None:
    ray = pytest.importorskip("ray.tune", reason="the extra tune is not installed")
    assert domain_of(ray.choice([1, 2])) == Choice((1, 2))
    assert domain_of(ray.uniform(0, 1)) == Interval(0, 1)
    assert domain_of(ray.loguniform(1e-4, 1)) == Interval(1e-4, 1, log=True)
    assert domain_of(ray.randint(1, 5)) == Interval(1, 5, integer=True)
    assert domain_of(ray.grid_search([1, 2])) == Choice((1, 2), every=True)
    assert values_at_ends(ray.randn()) == [] == values_at_ends(ray.sample_from(lambda _: 1))


def test_options_of_a_search_are_checked() -> None:
    with pytest.raises(InvalidOptionError, match="asha"):
        SearchOptions(scheduler="ahsa")  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match="'gpu'"):
        SearchOptions(resources={"gpus": 1})
    with pytest.raises(InvalidOptionError, match="at least 1"):
        SearchOptions(num_samples=0)
    assert SearchOptions(resources={"cpu": 3}).n_threads() == 3


def test_a_search_is_resumed_only_with_the_same_arguments(tmp_path: Any) -> None:
    folder = search_folder(SCVI, tmp_path, "one", resume=False)
    record = {"seed": 0, "space": {"model_params/n_latent": "Choice(values=(3, 4))"}}
    assert not write_record(folder, record)
    with pytest.raises(InvalidOptionError, match="resume='auto'"):
        search_folder(SCVI, tmp_path, "one", resume=False)
    assert write_record(search_folder(SCVI, tmp_path, "one", resume=True), record)
    with pytest.raises(ResumeError, match="seed: 0 then, 1 now"):
        write_record(folder, {**record, "seed": 1})
    with pytest.raises(InvalidOptionError, match="name of the search"):
        search_folder(SCVI, tmp_path, None, resume=True)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_extra_is_named(cells_set_up: AnnData) -> None:
    with pytest.raises(ImportError, match=r"cellvae\[tune\]"):
        tune.run(SCVI, cells_set_up, {"n_latent": tune.choice([3, 4])})
    with pytest.raises(ImportError, match=r"cellvae\[tune\]"):
        cellvae.autotune.run_autotune(
            SCVI, cells_set_up, "elbo_validation", "min", {"model_params": {}}, 2
        )


def test_backed_cells_and_mudata_come_from_their_files(
    cells: Callable[..., AnnData], tmp_path: Any
) -> None:
    import anndata
    import mudata

    cells().write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    backed.obs["half"] = np.where(np.arange(len(backed)) % 2, "odd", "even")
    SCVI.setup_anndata(backed, batch_key="half")
    shared = SharedCells.of(backed, SCVI, tmp_path)
    assert shared.adata is None
    assert SCVI(shared.open(SCVI)).summary_string == SCVI(backed).summary_string
    with pytest.raises(InvalidOptionError, match="part of a backed"):
        SharedCells.of(backed[:20], SCVI, tmp_path)
    both = cellvae.data.synthetic_iid(batch_size=20, n_genes=8, n_proteins=4)
    proteins = AnnData(np.asarray(both.obsm["protein_expression"]), obs=both.obs[[]])
    proteins.var_names = [f"protein{i}" for i in range(proteins.n_vars)]
    kind = cellvae.model.TOTALVI
    # mudata 0.4 has no such option: it never copies columns.
    options = getattr(mudata, "set_options", None)
    with options(pull_on_update=False) if options else nullcontext():
        mdata = mudata.MuData({"rna": both, "protein": proteins})
    modalities = {"rna_layer": "rna", "protein_layer": "protein", "batch_key": "rna"}
    kind.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    shared = SharedCells.of(mdata, kind, tmp_path / "search")
    assert shared.path == tmp_path / "search" / "cells.h5mu"
    assert kind(shared.open(kind)).summary_string == kind(mdata).summary_string
