"""Draws of populations chosen by importance weights over all their cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Normal

from cellvae.errors import InvalidOptionError, UnknownOptionError
from cellvae.inference.cell_pass import inference_mode, plan_pass
from cellvae.inference.differential import resampling
from cellvae.inference.differential.posterior_pool import sample_pool, slice_pool
from cellvae.inference.likelihood.importance_options import ImportanceOptions
from cellvae.model import SCVI

pytestmark = pytest.mark.trains

FEW = {"max_cells": 7, "n_mc_samples": 3, "n_mc_samples_per_pass": 2}


@pytest.fixture
def weigh(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Weights of draws of the lowest first coordinate alone; keeps what was asked."""
    seen: list[dict[str, Any]] = []

    def lowest(
        model: Any, adata: Any, indices: Any, qz: Any, px: Any, zs: Any, **kwargs: Any
    ) -> Any:
        seen.append({"indices": indices, "qz": qz, "px": px, "zs": zs, **kwargs})
        few = zs[:, 0].argsort()[: len(zs) // 10]
        weights = np.zeros(len(zs))
        weights[few.numpy()] = 1 / len(few)
        return weights

    monkeypatch.setattr(resampling, "get_importance_weights", lowest)
    return seen


def distance(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Largest difference of each value from the nearest of the others."""
    return (values[:, None] - others).abs().amax(dim=-1).min(dim=1).values


def test_draws_are_those_that_have_weight(
    trained: Callable[..., SCVI], weigh: list[dict[str, Any]]
) -> None:
    model = trained({"batch_key": "batch"}, latent_distribution="ln")
    populations = [np.arange(20), np.arange(20, 60)]
    asked = plan_pass(model, None, None, None, silent=True)
    options = ImportanceOptions(max_cells=5, truncation=True)
    with inference_mode(model):
        pool = sample_pool(model.module, asked, populations, 50, importance=False)
        found = resampling.resample_pool(model, None, populations, pool, options, 16)
    for place, cells in enumerate(populations):
        call = weigh[place]
        assert call["indices"] is cells
        assert (call["max_cells"], call["truncation"], call["n_mc_samples"]) == (5, True, 500)
        mean, variance = model.get_latent_representation(indices=cells, return_dist=True)
        torch.testing.assert_close(call["qz"].loc, torch.from_numpy(mean))
        torch.testing.assert_close(call["qz"].scale.square(), torch.from_numpy(variance))
        assert call["px"].mean.shape == (50, 10)
        rows = slice(50 * place, 50 * place + 50)
        latent, batch = slice_pool(found, rows)
        lowest = call["zs"][call["zs"][:, 0].argsort()[:5]]
        near = distance(latent.sample, model.module.transform(lowest))
        assert near.max() < 1e-6
        drawn = found.cells[rows]
        assert np.isin(drawn.numpy(), cells).all()
        own = model.rows.take(drawn)
        assert torch.equal(batch.batch, own.batch)
        with inference_mode(model):
            torch.testing.assert_close(latent.posterior.loc, model.module.encode(own).posterior.loc)
        torch.testing.assert_close(latent.log_library, own.counts.sum(dim=1, keepdim=True).log())


def test_expression_of_a_population_is_that_of_its_draws(
    trained: Callable[..., SCVI], weigh: list[dict[str, Any]]
) -> None:
    model = trained()
    kwargs: dict[str, Any] = {
        "n_samples_overall": 40,
        "weights": "importance",
        "gene_list": ["gene7", "gene0"],
        "transform_batch": ["b0", "b2"],
        "library_size": 1e4,
        "indices": range(30),
    }
    table = model.get_normalized_expression(**kwargs, max_cells=7)
    assert weigh[0]["max_cells"] == 7
    assert table.shape == (40, 2)
    assert [*table.columns] == ["gene7", "gene0"]
    assert set(table.index) <= set(model.adata.obs_names[:30])
    lowest = weigh[0]["zs"][weigh[0]["zs"][:, 0].argsort()[:4]]
    expected = []
    with inference_mode(model):
        batch = model.rows.take(torch.arange(4))
        latent = model.module.encode(batch)._replace(sample=lowest)
        for code in (0, 2):
            read = batch._replace(batch=torch.full((4, 1), code))
            expected.append(model.module.decode_scale(latent, read)[:, [7, 0]])
    values = torch.stack(expected).mean(dim=0) * 1e4
    near = distance(torch.from_numpy(table.to_numpy(copy=True)), values)
    assert near.max() < 1e-2
    nested = model.get_normalized_expression(**kwargs, importance_weighting_kwargs={"max_cells": 9})
    assert weigh[-1]["max_cells"] == 9
    assert nested.shape == (40, 2)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_differential_expression_by_weights_over_populations(
    trained: Callable[..., SCVI], likelihood: str
) -> None:
    model = trained({"batch_key": "batch"}, gene_likelihood=likelihood)
    kwargs: dict[str, Any] = {"groupby": "label", "n_samples_overall": 60, "silent": True}
    tables = []
    for further in ({}, {"weights": "importance", "importance_weighting_kwargs": FEW}):
        torch.manual_seed(0)
        tables.append(model.differential_expression(**kwargs, **further))
    uniform, weighted = (table.set_index("group1", append=True).sort_index() for table in tables)
    assert np.isfinite(weighted.select_dtypes("number")).all(axis=None)
    pd.testing.assert_frame_equal(
        uniform[["raw_mean1", "raw_mean2"]], weighted[["raw_mean1", "raw_mean2"]]
    )
    assert not np.allclose(uniform["scale1"], weighted["scale1"])
    np.testing.assert_allclose(weighted.groupby(level="group1")["scale1"].sum(), 1, rtol=1e-4)


def test_weights_are_of_counts_at_the_size_of_each_cell(trained: Callable[..., SCVI]) -> None:
    from cellvae.inference.likelihood.importance_weights import log_likelihoods

    for config in (
        {"gene_likelihood": "zinb"},
        {"gene_likelihood": "nb"},
        {"gene_likelihood": "poisson"},
    ):
        model = trained({"batch_key": "batch"}, **config)
        cells = model.rows.take(torch.arange(5))
        batch = model.rows.take(torch.arange(30, 38))
        with inference_mode(model):
            codes = model.module.encode(batch)
            px = model.module.decode(codes, batch)["rna"]
            sizes = cells.counts.sum(dim=1, keepdim=True)
            found = log_likelihoods(px, cells.counts, torch.Size([8]), sizes)
            for cell in range(5):
                library = sizes[cell].log().expand(8, 1)
                at_size = model.module.decode(codes._replace(log_library=library), batch)["rna"]
                expected = at_size.log_prob(cells.counts[cell]).sum(dim=-1, dtype=torch.float64)
                torch.testing.assert_close(found[cell], expected, rtol=1e-5, atol=1e-5)


def test_options_without_use_are_refused(trained: Callable[..., SCVI]) -> None:
    model = trained()
    ask, compare = model.get_normalized_expression, model.differential_expression
    weighted: dict[str, Any] = {"weights": "importance", "n_samples_overall": 5}
    with pytest.raises(UnknownOptionError, match="'max_cell'. Did you mean 'max_cells'"):
        ask(**weighted, max_cell=3)
    with pytest.raises(UnknownOptionError, match="'gene_lst'. Did you mean 'gene_list'"):
        ask(gene_lst=["gene0"])
    with pytest.raises(UnknownOptionError, match="no option 'colour'"):
        ask(colour="blue")
    with pytest.raises(InvalidOptionError, match="max_cells to be at least 1; got 0"):
        ask(**weighted, max_cells=0)
    with pytest.raises(InvalidOptionError, match="weights='importance' with importance_weighting"):
        ask(n_samples_overall=5, max_cells=3)
    with pytest.raises(InvalidOptionError, match="Expected n_samples_overall"):
        ask(weights="importance", n_samples=4, truncation=True)
    with pytest.raises(InvalidOptionError, match="to be a dictionary"):
        ask(**weighted, importance_weighting_kwargs=[3])
    for kwargs, error, message in (
        ({"weights": "uniform"}, InvalidOptionError, "which does not use them"),
        ({"weights": "importance", "more": 1}, UnknownOptionError, "no option 'more'"),
    ):
        options = {"max_cells": 3, **{k: v for k, v in kwargs.items() if k == "more"}}
        weights: Any = kwargs["weights"]
        with pytest.raises(error, match=message):
            compare(groupby="label", weights=weights, importance_weighting_kwargs=options)
    plain = compare(groupby="label", importance_weighting_kwargs={}, n_samples_overall=10)
    assert len(plain) == 20


def test_true_posteriors_leave_the_draws_alike(linear: Callable[..., Any]) -> None:
    """Under its true posteriors all draws of a linear model have the same weight."""
    model = linear()
    qz = model.module.encode(model.take(torch.arange(40))).posterior
    assert isinstance(qz, Normal)
    options = ImportanceOptions(n_mc_samples=3, n_mc_samples_per_pass=2)
    weights: list[np.ndarray] = []
    original = resampling.get_importance_weights

    def kept(*args: Any, **kwargs: Any) -> np.ndarray:
        weights.append(original(*args, **kwargs))
        return weights[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "get_importance_weights", kept)
        asked = plan_pass(model, None, None, None, silent=True)
        with inference_mode(model):
            torch.manual_seed(0)
            pool = sample_pool(model.module, asked, [np.arange(40)], 25, importance=False)
            resampling.resample_pool(model, None, [np.arange(40)], pool, options, None)
    np.testing.assert_allclose(weights[0], 1 / 25, rtol=1e-3)
